"""Lightning's own tests, with and without us in every Trainer: `python -m tests.lightning_suite DIR`.

DIR is a checkout of Lightning's public repository, at the tag of the Lightning that is installed or the nearest to it. Its
tests know nothing of us, so what fails with us and passes without us is something that we changed in somebody's training.

The suite is run in up to four ways, which are called arms:

=======  ======================================================================================================
`none`   as it is; `LIGHTNING_WATT` is not set
`empty`  every Trainer is given a callback that does nothing: what fails here fails with any callback
`quiet`  every Trainer is given a `WattCallback` that logs nothing, writes nothing and prints nothing: what fails
         here and not in `empty` is a change of the training itself, so it is a fault
`full`   `LIGHTNING_WATT=1`: what fails here and not in `quiet` is a test that counts what was logged, written, or
         said; each needs a look
=======  ======================================================================================================

The callback comes through Lightning's `callbacks_factory` entry points: a throw-away distribution in a temporary folder on
PYTHONPATH brings it, so that subprocesses and spawned ranks have it too.

How to read what it prints: for each arm, how many tests passed, failed, were skipped, hung or took the process with them,
then for each pair of arms (`empty` beside `none`, `quiet` and `full` beside `empty`) the tests that came out differently,
each with the first line of its error. `--confirm` runs each of those once more, alone and with three times its limit, in
both arms: those that differ again are marked `again`, the others `not again` (they depend on chance, on the tests before
them, or on how busy the machine is). The exit status is 1 if `quiet` differs from `empty` (with `--confirm`: differs again).

The results stay in `--out` (a line of JSON for each test, `ARM.jsonl`; the logs below `logs/`), and an arm that is not run
this time is compared by what it has there: run `none` and `empty` once, then `quiet` after each change. A test that needs
the network, a GPU or a package that is not there is skipped, or fails in all arms alike.

The tests of one folder run in one process, as upstream runs all of them in one; a process for each file would add a start of
four seconds for each of 182 files. One that hangs, or takes its process with it, is noted, and the rest of its folder goes
on in a new process. Each process works on a copy of DIR's tests, because they fail if a file appears in their own folders.
`--jobs` is 1 unless asked for: some tests have time limits of their own, and Lightning picks a free port a moment before it
uses it, so two of them may pick the same. Two suites at once on one machine are worse: one test serves on a fixed port.
"""
