from classifiers.sentences import normalize, sentences, tokens


def test_lines_are_normalised_as_ccnet_does() -> None:
    assert normalize("Été 2024, “Größe” … 12٣\u200b\x07") == 'ete 0000, "große" . 000'
    assert normalize("水车，好。") == "水车,好."
    assert normalize("A\tB\u00a0C") == "a b c"


def test_texts_become_lines_of_words_and_marks() -> None:
    assert tokens("it's 00%") == ["it", "'", "s", "00", "%"]
    assert sentences("One two.\n\n \nThree") == [["one", "two", "."], ["three"]]
    assert sentences("ab", cut=list) == [["a", "b"]]
