"""The pages of docs/ops, made from the specifications of the ops.

python -m deblur_export.plugins.ops_pages docs/ops
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deblur_export.plugins.function_body import DOMAIN, VERSION
from deblur_export.plugins.ops import MODULES
from deblur_export.plugins.parameters import AttributeSpec, TensorSpec
from deblur_export.plugins.shapes import evaluate, evaluate_shape
from deblur_export.plugins.spec import OpSpec

COMMAND = "python -m deblur_export.plugins.ops_pages docs/ops"
TYPES = {"T": "T", "tensor(float)": "float32", "tensor(int64)": "int64"}
TEXT_TYPES = {"T": "float", "tensor(float)": "float", "tensor(int64)": "int64"}
# Sizes of the example nodes.
SIZES = {"N": 1, "C": 64, "H": 90, "W": 160, "D": 64, "S": 16, "L": 1024, "O": 32, "P": 100}
SIZES |= {"K": 81, "width": 160}
CPU, OPENVINO = "libdeblur_cpu", "libdeblur_openvino"
CUDA, TENSORRT = "libdeblur_kernels", "libdeblur_plugins"

INDEX = f"""# Custom ops

The networks need a few operations that ONNX has no operator for, or none that every runtime has.
Each is a node of domain `{DOMAIN}`, version {VERSION}. A file carries the body of its ops in
standard operators (a model-local function), so that it needs nothing from this project; native
libraries, where they are there, compute the same faster.

In the tables, `T` is the floating-point type that follows the precision of a file: float32, float16
or bfloat16. An input of type float32 stays float32 in every file, for the reason given. Shapes name
sizes by capital letters (N images, C channels, H rows and W columns of pixels, O output channels,
P listed pixels, K columns of a spectrum; D channels, S states and L steps of a sequence) and
attributes by their names. All attributes are integers.

`{COMMAND}` writes these pages from `plugins/ops/*.py`.
"""


def pages() -> dict[str, str]:
    """The text of every page, by file name."""
    rows, texts = [], {}
    for module in MODULES:
        name = module.__name__.rpartition(".")[2]
        groups = _groups(module.SPECS)
        texts[f"{name}.md"] = _page(name, groups)
        ops = ", ".join(f"`{spec.name}`" for group in groups for spec in _ends(group))
        rows.append((f"[{name}]({name}.md)", ops, _summary(module.SPECS[0])))
    index = f"{INDEX}\n{_table(('page', 'ops', 'what they compute'), rows)}"
    return {"index.md": index, **texts}


def _groups(specs: Iterable[OpSpec]) -> list[list[OpSpec]]:
    """Specifications that differ in nothing but what follows from their names, together."""
    groups: dict[str, list[OpSpec]] = {}
    for spec in specs:
        same = (spec.inputs, spec.outputs, spec.attributes, spec.bodies)
        groups.setdefault(repr(same), []).append(spec)
    return list(groups.values())


def _ends(group: Sequence[OpSpec]) -> list[OpSpec]:
    return [group[0], group[-1]] if len(group) > 1 else [group[0]]


def _summary(spec: OpSpec) -> str:
    """The first paragraph of the text, without its full stop."""
    return " ".join(spec.about.split("\n\n")[0].split()).rstrip(".")


def _page(name: str, groups: Sequence[Sequence[OpSpec]]) -> str:
    first, specs = groups[0][0], [spec for group in groups for spec in group]
    title = " and ".join(spec.name for spec in specs) if len(specs) == 2 else first.name
    parts = [
        f"<!-- Written by `{COMMAND}` from plugins/ops/{name}.py -->\n",
        f"# {title}\n",
        first.about.strip() + "\n",
        f"Source: {first.source}.\n",
        *(part for group in groups for part in _sections(group)),
    ]
    return "\n".join(parts)


def _sections(group: Sequence[OpSpec]) -> list[str]:
    spec = group[-1]
    parts = [f"## {', '.join(s.name for s in group)}\n"]
    if len(group) == 1:  # what they differ in is said by the names
        parts.append(f"{spec.doc}\n")
    parts.append(_table(("input", "type", "shape", "meaning"), map(_row, *_columns(spec.inputs))))
    parts.append(_table(("output", "type", "shape", "meaning"), map(_row, *_columns(spec.outputs))))
    if spec.attributes:
        rows = [_attribute(name, attribute) for name, attribute in spec.attributes.items()]
        parts.append(_table(("attribute", "values", "meaning"), rows))
    if kept := [(f"`{n}`", t.fp32) for n, t in spec.inputs.items() if t.fp32]:
        parts.append(_table(("stays float32", "why"), kept))
    if spec.body is None:
        parts.append("Only PyTorch and traced graphs have it: a graph pass replaces it.\n")
    else:
        parts.append(_table(("target", "body in standard operators"), _bodies(spec)))
        parts.append(f"A file of one node, as ONNX text:\n\n```text\n{example(spec)}```\n")
    parts.append(_table(("where", "name"), _faces(spec)))
    return parts


def _columns(tensors: Mapping[str, TensorSpec]) -> tuple[Iterable[str], Iterable[TensorSpec]]:
    return tensors.keys(), tensors.values()


def _row(name: str, tensor: TensorSpec) -> tuple[str, ...]:
    notes = [tensor.doc]
    if tensor.optional:
        notes.append("optional")
    return f"`{name}`", TYPES[tensor.type], f"[{tensor.shape}]", "; ".join(notes)


def _attribute(name: str, attribute: AttributeSpec) -> tuple[str, ...]:
    values = ", ".join(map(str, attribute.values)) or attribute.equals or "1, 2, 3, ..."
    optional = "; optional, 0 where it is left out" if attribute.optional else ""
    return f"`{name}`", values, attribute.doc + optional


def _bodies(spec: OpSpec) -> list[tuple[str, ...]]:
    return [(f"`{names.replace(', ', '`, `')}`", text) for names, text in spec.bodies.items()]


def _faces(spec: OpSpec) -> list[tuple[str, str]]:
    rows = []
    if spec.torch_op is not None:
        rows.append(("PyTorch", f"`{spec.torch_op}`"))
    if spec.cpu is not None:
        users = [CPU] * spec.torch_on_cpu + [OPENVINO] * spec.openvino
        text = f"`{spec.cpu.name}`, in {' and '.join(users)}"
        if spec.torch_op is not None and not spec.torch_on_cpu:
            text += "; PyTorch on the CPU computes the definition"
        if last := [f"`{name}`" for name, tensor in spec.inputs.items() if tensor.channels_last]:
            text += f"; {', '.join(last)} and the output also channels-last in float32 or bfloat16"
        rows.append(("CPU", text))
    if spec.cuda is not None:
        workspace = f", workspace `{spec.cuda.name}_workspace`" if spec.cuda.workspace else ""
        rows.append(("CUDA", f"`{spec.cuda.name}`, in {CUDA}{workspace}"))
    if spec.openvino:
        rows.append(("OpenVINO", f"node of domain `{DOMAIN}`, in {OPENVINO}"))
    if spec.tensorrt:
        rows.append(("TensorRT", f"plugin of namespace `{DOMAIN}`, in {TENSORRT}"))
    return rows


def example(spec: OpSpec) -> str:
    """A file of one node in ONNX's text format, without the optional inputs and attributes.

    The node stands without its body: `passes.attach_functions` adds it.
    """
    values = {**SIZES, **spec.constants}
    attributes = {}
    for name, attribute in spec.attributes.items():
        chosen = attribute.values[-1] if attribute.values else 2
        values[name] = evaluate(attribute.equals, values) if attribute.equals else chosen
        if attribute.optional:
            values[name] = 0
        else:
            attributes[name] = values[name]

    def formal(tensors: Mapping[str, TensorSpec]) -> str:
        return ", ".join(
            f"{TEXT_TYPES[tensor.type]}{list(evaluate_shape(tensor.shape, values))} {name}"
            for name, tensor in tensors.items()
        )

    inputs = {name: tensor for name, tensor in spec.inputs.items() if not tensor.optional}
    sizes = [name for name, tensor in inputs.items() if not tensor.shape]
    constants = "".join(f"  {n} = Constant <value_int = {values[n]}> ()\n" for n in sizes)
    tensors = {name: tensor for name, tensor in inputs.items() if tensor.shape}
    settings = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    return (
        f'<ir_version: 10, opset_import: ["" : 18, "{DOMAIN}" : {VERSION}]>\n'
        f"example ({formal(tensors)})\n    => ({formal(spec.outputs)}) {{\n{constants}"
        f"  {', '.join(spec.outputs)} = {DOMAIN}.{spec.name}{f' <{settings}>' * bool(settings)} "
        f"({', '.join(inputs)})\n}}\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages into the folder that is named."""
    parser = argparse.ArgumentParser(description="Write one page for each custom op.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
