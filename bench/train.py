"""Train a network on a pool of synthetic pairs (bench/pairs.py makes one).

python bench/train.py --model m2aenet --variant tiny --pool POOL -o RUN --minutes 30

RUN gets best.safetensors and last.safetensors (averaged weights, float32, official key names),
log.jsonl, and state.pt, from which the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from deblur_export import models
from deblur_export.errors import DeblurExportError
from deblur_export.models.spec import ModelSpec


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def parser() -> Parser:
    description, _, _ = (__doc__ or "").partition("\n\n")
    p = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--model", required=True, help=f"one of {', '.join(models.NAMES)}")
    p.add_argument("--variant", default="tiny", help="see `deblur-export models`")
    p.add_argument("--pool", type=Path, required=True, help="folder with train/ and val/")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    p.add_argument("--steps", type=positive, help="length of the run in steps")
    p.add_argument("--minutes", type=above_zero, help="length in minutes; the shorter one counts")
    p.add_argument("--batch", type=positive, default=8, help="crops a step")
    p.add_argument("--crop", type=positive, default=128, help="side of the crops in pixels")
    p.add_argument("--focus", type=float, default=0.75, help="share of crops with blur in them")
    p.add_argument("--longest", type=above_zero, help="longest motion to train on, in pixels")
    p.add_argument("--lr", type=above_zero, default=1e-3, help="highest learning rate")
    p.add_argument("--clip", type=above_zero, default=0.01, help="largest norm of the gradient")
    p.add_argument("--images", choices=["paper", "relative"], default="paper", help="image loss")
    p.add_argument("--frequency-weight", type=above_zero, default=0.1, help="of the Fourier loss")
    p.add_argument("--mask-weight", type=above_zero, default=0.01, help="M2AENet's mask loss")
    p.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights")
    p.add_argument("--seed", type=int, default=0)
    first = p.add_mutually_exclusive_group()
    first.add_argument("--init-from", type=Path, help="weights to start from")
    first.add_argument(
        "--from-nafnet",
        help="NAFNet weights (a file or 'demo') that algnet, dhnet, aibnet or ufpnet starts as",
    )
    p.add_argument("--frozen-encoder", action="store_true", help="AIBNet: as the paper")
    p.add_argument("--bf16", choices=["auto", "on", "off"], default="auto")
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...")
    p.add_argument("--threads", type=positive, help="CPU threads")
    p.add_argument("--val-every", type=positive, default=500, help="steps between validations")
    p.add_argument("--val-images", type=positive, default=32)
    p.add_argument("--save-every", type=above_zero, default=180, help="seconds between state files")
    return p


def check(args: argparse.Namespace) -> ModelSpec:
    """The network's specification, if the arguments make sense."""
    spec = models.get(args.model)
    if args.variant not in spec.variants:
        known = ", ".join(spec.variants)
        raise DeblurExportError(f"{spec.name} has no variant '{args.variant}'; it has: {known}")
    if args.steps is None and args.minutes is None:
        raise DeblurExportError("give the length of the run: --steps, --minutes or both")
    if args.crop % spec.size_multiple:
        raise DeblurExportError(
            f"--crop {args.crop}: {spec.name} needs a multiple of {spec.size_multiple}"
        )
    if spec.name == "algnet" and args.crop < 32:
        raise DeblurExportError("algnet is compared at an eighth of the size: --crop 32 or more")
    if not 0 <= args.ema < 1:
        raise DeblurExportError(f"--ema {args.ema}: must be at least 0 and below 1")
    if not 0 <= args.focus <= 1:
        raise DeblurExportError(f"--focus {args.focus}: must lie between 0 and 1")
    if args.seed < 0:
        raise DeblurExportError(f"--seed {args.seed}: must not be negative")
    if spec.name == "aibnet" and args.batch < 2:
        raise DeblurExportError("aibnet normalizes over the batch: --batch must be at least 2")
    return spec


def choose_device(name: str) -> Any:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeblurExportError(f"--device {name}: not usable here") from error
    return device


def build(spec: ModelSpec, args: argparse.Namespace, device: Any) -> tuple[Any, str]:
    """The network with its first weights, and their fingerprint."""
    import torch

    from deblur_export.export.checkpoint import fingerprint, load_model
    from deblur_export.models.training import phases
    from deblur_export.models.training.inherit import inherit

    if args.init_from is not None:
        net = load_model(spec.name, args.variant, str(args.init_from)).net
    else:
        torch.manual_seed(args.seed)
        net = spec.build(**spec.variants[args.variant])
    phases.prepare(net, fresh=args.init_from is None)
    if args.from_nafnet is not None:
        inherit(net, load_model("nafnet", None, args.from_nafnet).net)
    return net.to(device), fingerprint(net.state_dict())


def train(args: argparse.Namespace, console: Console) -> bool:
    spec = check(args)
    with console.status("loading PyTorch"):
        import torch

        from deblur_export.export.atomic import atomic_path
        from deblur_export.models.training import phases
        from deblur_export.models.training.display import Display
        from deblur_export.models.training.objective import Weights
        from deblur_export.models.training.pool import Pool, fingerprint
        from deblur_export.models.training.schedule import Schedule
        from deblur_export.models.training.state import Folder
        from deblur_export.models.training.trainer import Options, Trainer
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    device = choose_device(args.device)
    train_pool, val_pool = Pool(args.pool, "train", args.longest), Pool(args.pool, "val")
    net, origin = build(spec, args, device)
    bf16 = args.bf16 == "on"
    if args.bf16 == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    names = ["steps", "minutes", "batch", "crop", "focus", "longest", "lr", "clip"]
    names += ["images", "frequency_weight", "mask_weight", "ema", "seed"]
    arguments = {
        "model": f"{spec.name}:{args.variant}",
        "pool": fingerprint(args.pool),
        "first weights": origin,
        "bf16": bf16,
        "frozen_encoder": args.frozen_encoder,
        "from_nafnet": args.from_nafnet,
        **{name: getattr(args, name) for name in names},
    }
    options = Options(
        schedule=Schedule(args.steps, args.minutes, phases.count(net), args.lr),
        arguments=arguments,
        batch=args.batch,
        crop=args.crop,
        focus=args.focus,
        clip=args.clip,
        average=args.ema,
        seed=args.seed,
        bf16=bf16,
        encoder=not args.frozen_encoder,
        fresh=args.init_from is None,
        weights=Weights(images=args.images, frequency=args.frequency_weight, mask=args.mask_weight),
        validate=args.val_every,
        images=args.val_images,
        save=args.save_every,
    )
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeblurExportError(f"{args.output}: cannot be made: {error.strerror}") from error
    trainer = Trainer(net, train_pool, val_pool, Folder(args.output, atomic_path), options)
    stop_on_signals(trainer)
    with Display(console, arguments["model"]) as display:
        begin(trainer, display, phases.note(net), len(train_pool.drawn))
        return trainer.run(display)


def stop_on_signals(trainer: Any) -> None:
    """The first Ctrl-C or SIGTERM ends the run after the current step, the second one at once."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        trainer.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def begin(trainer: Any, display: Any, note: str, pairs: int) -> None:
    """Say what is about to happen."""
    trained = sum(p.numel() for p in trainer.net.parameters())
    start = f"from step {trainer.step}" if trainer.step else "from the start"
    display.say(f"{trained} parameters, {pairs} pairs, {trainer.device}, {start}")
    if note:
        display.say(f"note: {note}")


def main() -> NoReturn:
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    args = parser().parse_args()
    console = Console(soft_wrap=True, markup=False)
    try:
        done = train(args, console)
    except DeblurExportError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        done = False
    if not done:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(2)
    console.print(f"done: {args.output / 'best.safetensors'}")
    sys.exit(0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
