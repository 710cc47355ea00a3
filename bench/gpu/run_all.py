"""The steps of run_all.sh: each in a process of its own with its own limit, most valuable first.

Every step leaves its result in the output folder at once, and the next one runs whatever became of
it. steps.txt says how each ended. `--only STEP` repeats single steps and keeps the other results.
`--dry-run` needs no GPU: it compiles for compute capability 9.0 where there is nvcc, and starts
every step on tiny inputs on the CPU where it can.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOTAL = 540.0  # seconds for all steps
NETWORK_STOP = 470.0  # no further network starts after this
TESTS = {
    "kernels": "tests/plugins/libraries/test_cuda_gpu.py",
    "networks": "tests/models/test_networks_gpu.py",
    "plugins": "tests/plugins/tensorrt/test_tensorrt_plugins.py",
}
# Parts of the tests of kernels, each a process: an illegal address spoils one alone.
PARTS = (
    "SelectiveScan or selective_scan",
    "MotionDeformConv",
    "DeformConv2d",
    "DynamicFilter",
    "LocalMean",
    "PixelGather or PixelScatter or SamplingGrid",
    "PrunedConv or pruned",
    "TopPixels",
)
REST = " and ".join(f"not ({part})" for part in PARTS)
OPS = ("SelectiveScan", "MotionDeformConv", "PrunedConv", "DeformConv2d")
OPS += ("LocalMean", "DynamicFilter", "TopPixels")
NETWORKS = ("nafnet", "m2aenet", "saphn", "ufpnet", "dhnet", "aibnet", "algnet")
# Nsight Compute on one launch of each kernel: stalls, issue slots, bytes.
METRICS = (
    "gpu__time_duration.sum,sm__inst_executed.sum,smsp__issue_active.avg.pct,dram__bytes.sum,"
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio,"
    "smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio"
)


@dataclass
class Run:
    """One call of this script: where results go, and how much time is left."""

    out: Path
    dry: bool
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        return TOTAL - (time.monotonic() - self.begun)

    def limit(self, seconds: float) -> float:
        return max(1.0, min(seconds, self.left))

    def note(self, line: str) -> None:
        """To the terminal and to steps.txt, at once."""
        print(line, flush=True)
        with (self.out / "steps.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, None for the limit, and what it printed."""

    code: int | None
    text: str
    seconds: float

    def __str__(self) -> str:
        how = "stopped at its limit" if self.code is None else f"exit code {self.code}"
        return f"{how} after {self.seconds:.0f} s"


class Process:
    """A command in a process group of its own, so that nothing of it outlives its limit. What it
    prints goes to a file: a pipe that nobody reads yet would stop it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.begun = time.monotonic()
        self.output = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by `finish`
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, seconds: float) -> Ended:
        """Wait for the end, or for `seconds` from now."""
        code: int | None
        try:
            code = self.process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            code = None
        with self.output as output:
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        return Ended(code, text, time.monotonic() - self.begun)


def call(run: Run, command: Sequence[str], seconds: float) -> Ended:
    return Process(command).finish(run.limit(seconds))


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


def step_machine(run: Run) -> bool:
    """What the results are of."""
    code = (
        "import platform, torch; p = torch.cuda.get_device_properties(0) "
        "if torch.cuda.is_available() else None; "
        "print(platform.platform(), 'Python', platform.python_version(), 'torch', "
        "torch.__version__, 'CUDA', torch.version.cuda); print(p or 'no CUDA device')"
    )
    ended = call(run, python("-c", code), 60)
    run.note(ended.text.strip())
    for tool, flag in (("nvidia-smi", "-L"), ("nvcc", "--version")):
        if shutil.which(tool):
            run.note(call(run, [tool, flag], 20).text.strip().splitlines()[-1])
    return ended.code == 0


def step_build(run: Run) -> bool:
    """The kernels for this GPU, the TensorRT plugins where there are headers."""
    code = "import sys; sys.path.insert(0, 'bench/gpu'); import build; build.main()"
    ended = call(run, python("-c", code, *["--dry-run"] * run.dry), 100)
    (run.out / "build.txt").write_text(f"{ended}\n{ended.text}", encoding="utf-8")
    return ended.code == 0


def step_tests(run: Run) -> bool:
    """Kernels, long scans, networks and plugins against float64, side by side."""
    common = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-m", "gpu")
    common += ("--collect-only",) * run.dry
    jobs = [(TESTS["kernels"], part) for part in (*PARTS, REST)]
    jobs += [(TESTS["networks"], ""), (TESTS["plugins"], "")]
    if run.dry:
        jobs = [(TESTS["kernels"], REST), (TESTS["networks"], "")]
    begun = time.monotonic()
    started = [
        (file, part, Process(python(*common, file, *(("-k", part) if part else ()))))
        for file, part in jobs
    ]
    good, report = True, []
    for file, part, process in started:
        spent = time.monotonic() - begun
        ended = process.finish(run.limit(150 - spent))
        good = good and ended.code == 0
        last = ended.text.strip().splitlines()[-1:] or [""]
        label = "the rest" if part == REST else part
        run.note(f"  {file} {label}: {ended}: {last[0].strip('= ')}")
        report.append(f"##### {file} {part}: {ended}\n{ended.text[-20_000:]}\n")
        (run.out / "tests.txt").write_text("".join(report), encoding="utf-8")
    return good


def step_kernels(run: Run) -> bool:
    """Kernels against their baselines, alone on the GPU, a process for each op."""
    good, end = True, time.monotonic() + 200
    command = ["bench/kernels.py", "--json", str(run.out / "kernels.json")]
    calls = {op: ["--only", op] for op in OPS} if not run.dry else {"all ops": ["--dry-run"]}
    for name, arguments in calls.items():
        ended = call(run, python(*command, *arguments), end - time.monotonic())
        run.note(f"  {name}: {ended}")
        if ended.code != 0:
            run.note("    " + "\n    ".join(ended.text.strip().splitlines()[-6:]))
            good = False
    return good


def step_networks(run: Run) -> bool:
    """Whole networks with the kernels and without, a process each."""
    good = True
    for name in NETWORKS[1:2] if run.dry else NETWORKS:
        if TOTAL - run.left > NETWORK_STOP:
            run.note(f"  {name}: not started, {NETWORK_STOP:.0f} s are over")
            good = False
            continue
        out = str(run.out / "networks_cuda.json")
        command = ["bench/networks_cuda.py", "--network", name, "--json", out]
        ended = call(run, python(*command, *["--dry-run"] * run.dry), 75)
        run.note(f"  {name}: {ended}")
        if ended.code != 0:
            run.note("    " + "\n    ".join(ended.text.strip().splitlines()[-4:]))
            good = False
    return good


def step_why(run: Run) -> bool:
    """Counters of Nsight Compute, then races and bad accesses by compute-sanitizer."""
    quick = ("bench/kernels.py", "--quick", "--json", str(run.out / ".why.json"), "--only")
    # Every CUDA kernel here is an instance of the function `run` (csrc/common/launch.cuh).
    own = ("--kernel-name-base", "function", "--kernel-name", "run", "--launch-count", "4")
    ncu = ("--metrics", METRICS, *own)
    small = (TESTS["kernels"], "-m", "gpu", "-q", "-p", "no:cacheprovider", "-k", "float32 and odd")
    strict = ("--error-exitcode", "1")  # without it, findings leave the exit code at 0
    tests = python("-m", "pytest", *small)
    jobs = (
        *(("ncu", (*ncu, *python(*quick, op)), 20) for op in OPS[:3]),
        (
            "compute-sanitizer",
            ("--tool", "racecheck", *strict, *tests),
            40,
        ),
        ("compute-sanitizer", ("--tool", "memcheck", *strict, *tests), 30),
    )
    report, good = [], True
    for tool, arguments, seconds in jobs:
        if shutil.which(tool) is None or run.dry:
            reason = "not run in a dry run" if run.dry else "not installed"
            report.append(f"##### {tool} {' '.join(arguments)}\n{reason}\n")
        else:
            ended = call(run, [tool, *arguments], seconds)
            good = good and ended.code == 0
            run.note(f"  {tool} {arguments[1] if tool != 'ncu' else ''}: {ended}")
            report.append(f"##### {tool}: {ended}\n{ended.text[-30_000:]}\n")
        (run.out / "why.txt").write_text("".join(report), encoding="utf-8")
    (run.out / ".why.json").unlink(missing_ok=True)
    return good


def step_tables(run: Run) -> bool:
    """The tables of bench/README.md, of these results."""
    ended = call(run, python("bench/tables.py", "--gpu", str(run.out)), 30)
    (run.out / "tables.md").write_text(ended.text, encoding="utf-8")
    return ended.code == 0


STEPS: dict[str, Callable[[Run], bool]] = {
    "machine": step_machine,
    "build": step_build,
    "tests": step_tests,
    "kernels": step_kernels,
    "networks": step_networks,
    "tables": step_tables,
    "why": step_why,
}


def refuse(reason: str) -> None:
    print(f"error: {reason}", file=sys.stderr)
    raise SystemExit(2)


def check(run: Run) -> None:
    """What can be seen before any work.

    Raises:
        SystemExit: no device, one that the kernels are not for, no nvcc and no kernels, or a folder
            that cannot be written; one line and exit code 2.
    """
    try:
        run.out.mkdir(parents=True, exist_ok=True)
        probe = run.out / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        refuse(f"{run.out}: cannot be written: {error.strerror}; choose another folder with --out")
    if run.dry:
        return
    import torch

    if not torch.cuda.is_available():
        refuse("no CUDA device that PyTorch sees; --dry-run tries the steps without one")
    from deblur_export.plugins.compile.cpu import BuildError
    from deblur_export.plugins.compile.cuda import OLDEST, nvcc
    from deblur_export.plugins.libraries import cuda

    capability = torch.cuda.get_device_capability()
    if not cuda.runs_on(capability):
        refuse(
            f"{torch.cuda.get_device_name()} has compute capability "
            f"{'.'.join(map(str, capability))}; the kernels need {OLDEST / 10} or newer"
        )
    if not cuda.available():
        try:
            nvcc()
        except BuildError as error:
            refuse(f"{error}; install the CUDA toolkit, or set NVCC")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build, check and time everything on a GPU.")
    default = os.environ.get("OUT", str(ROOT / "bench" / "gpu" / "results"))
    parser.add_argument("--out", type=Path, default=Path(default), help="folder [$OUT or results]")
    parser.add_argument("--only", action="append", choices=STEPS, help="this step; repeat")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, on tiny inputs")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from links import LinkError, make_links

    try:
        make_links(ROOT)
    except LinkError as error:
        refuse(str(error))
    run = Run(options.out.absolute(), options.dry_run)
    check(run)
    if not options.only:
        (run.out / "steps.txt").unlink(missing_ok=True)
    failed = []
    for name in options.only or STEPS:
        begun = time.monotonic()
        if run.left < 5:
            run.note(f"{name}: not started, the {TOTAL:.0f} s are over")
            failed.append(name)
            continue
        run.note(f"{name}:")
        try:
            good = STEPS[name](run)
        except Exception as error:  # whatever happens, the next step runs
            run.note(f"  {error!r:.300}")
            good = False
        run.note(f"{name}: {'ok' if good else 'FAILED'}, {time.monotonic() - begun:.0f} s")
        failed += [name] * (not good)
    run.note(f"results in {run.out}")
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
