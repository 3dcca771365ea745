"""Language models on source code and on technical pages: rewriting, translation into C++, teaching texts, clean-up."""
