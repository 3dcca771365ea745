"""A driver that dies by SIGKILL at the nth time that a named commit point is passed; of chaos.py.

Usage: chaos_drive.py RECIPE STORE POINT N [reversed]
Tasks run in this very process, so that the points of workers are its own. With `reversed`, a receipt is made durable before
the files that it speaks of: the mistake that the suite must find. What was in flight is the last line of standard output.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import conftest

from manifests.bucket import Bucket, _SegmentLog
from manifests.shard import PartDraft
from manifests.store import Journal, Object, Store
from pipelines.graph import build
from pipelines.plan import make_plan
from pipelines.recipe import load
from pipelines.run import Run
from pipelines.targets import lay_out

RECIPE, STORE, POINT, N = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
REVERSED = sys.argv[5:] == ["reversed"]
passed = 0
flight = "nothing"
late = []


def point(name, what=""):
    global passed
    if name == POINT:
        passed += 1
        if passed == N:
            print(f"{flight}; {what}" if what else flight, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def around(owner, name, before, after, label=None):
    real = getattr(owner, name)

    def wrapped(self, *args, **kwargs):
        what = label(*args) if label else ""
        point(before, what)
        out = real(self, *args, **kwargs)
        point(after, what)
        return out

    setattr(owner, name, wrapped)


def short(value):
    return str(value).rsplit("/", 1)[-1][:24]


real_publish = Bucket.publish


def publish(self, draft, key):
    """A kill in the middle: half of the file has left, no PUT was finished."""
    point("before_upload", short(key))
    if POINT == "half_upload" and passed + 1 == N:
        import obstore

        whole = draft.read_bytes()

        def half():
            yield whole[: len(whole) // 2]
            point("half_upload", short(key))
            yield whole[len(whole) // 2 :]

        obstore.put(self.client, key, half(), use_multipart=True, chunk_size=5 << 20)
    elif POINT == "half_upload":
        point("half_upload")
    real_publish(self, draft, key)
    point("after_upload", short(key))


Bucket.publish = publish
around(Object, "ask", "before_question", "after_question", lambda _: "question.json")
around(Object, "answer", "before_manifest", "after_manifest", lambda units, *_: f"manifest {units[:8]}")
around(Bucket, "create", "before_manifest_head", "after_manifest_head", lambda key, _: short(key))
around(Store, "drop_spill", "before_drop_spill", "after_drop_spill", short)
around(Store, "record", "before_record", "after_record", lambda kind, name, _: f"{kind}/{name}")
around(_SegmentLog, "flush", "before_flush", "after_flush")
around(Bucket, "lock", "before_lock", "after_lock", short)
real_commit, real_append = PartDraft.commit, Journal.append


def commit(self):
    point("before_part")
    if not REVERSED:
        return real_commit(self)
    sealed = {}
    for suffix, (path, file) in self._files.items():
        sealed[suffix] = file.seal()
        kept = path.with_suffix(".late")
        path.rename(kept)
        late.append((self.place, kept, f"{self.folder}/parts/{self.key}{suffix}"))
    self._files.clear()
    return dict(sorted(sealed.items()))


def append(self, receipt):
    point("before_journal", receipt.name)
    real_append(self, receipt)
    if REVERSED:
        self.flush()
    point("after_journal", receipt.name)
    while REVERSED and late:
        place, path, key = late.pop()
        place.publish(path, key)


PartDraft.commit, Journal.append = commit, append


def begin(task):
    global flight
    flight = f"{task.unit.name.rsplit('/', 1)[-1]} of {task.program[:6]}"


recipe = load(RECIPE)
plan = make_plan(lay_out(recipe, build(recipe), Store.open(STORE)))
raise SystemExit(Run(plan, conftest.Inline(begin), lambda _: None, recipe.run.max_error_rate).go().code)
