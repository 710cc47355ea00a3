"""A small variant of every architecture that spandrel and spandrel_extra_arches know: the class
that builds it, by the module that holds it, and its arguments.

As small as spandrel's recognition and the architecture's own arithmetic allow: one block a stage,
few channels. `tests/models/foreign/test_spandrel.py` and `bench/architectures.py` make checkpoints
of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from deblur_export.models.foreign.spandrel_source import installed
from deblur_export.models.random_weights import perturb

EXTRA = ("SRFormer", "CodeFormer", "MAT", "DDColor", "AdaCode", "FeMaSR")
EXTRA += ("M3SNet", "Restormer", "MPRNet", "MIRNet2")
SWIN: Mapping[str, Any] = {
    "img_size": 16,
    "embed_dim": 12,
    "depths": [2],
    "num_heads": [2],
    "window_size": 8,
    "mlp_ratio": 2.0,
}
UP: Mapping[str, Any] = {"upscale": 2, "upsampler": "pixelshuffledirect"}
# Name of the class in the architecture's package, and the arguments.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ATD": (
        "ATD",
        {**SWIN, **UP, "num_tokens": 8, "reducted_dim": 4, "convffn_kernel_size": 3},
    ),
    "AuraSR": (
        "AuraSR",
        {
            "dim": 8,
            "image_size": None,
            "input_image_size": None,
            "init_dim": 8,
            "style_network": {"dim_in": 8, "dim_out": 32, "depth": 1},
            "up_dim_mults": (1, 1, 1, 1, 1),
            "down_dim_mults": (1, 1, 1),
            "full_attn": (False, False, False, False, True),
            "self_attn_dim_head": 8,
            "attn_depths": (2, 2, 2, 2, 1),
            "mid_attn_depth": 1,
            "num_conv_kernels": 2,
            "skip_connect_scale": 0.4,
        },
    ),
    "CRAFT": ("CRAFT", {"embed_dim": 32, "depths": [1], "num_heads": [2], "upscale": 2}),
    "Compact": ("Compact", {"num_feat": 8, "num_conv": 2, "upscale": 2}),
    "DAT": (
        "DAT",
        {
            "img_size": 32,
            "embed_dim": 32,
            "split_size": [4, 8],
            "depth": [2],
            "num_heads": [2],
            "expansion_factor": 2.0,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
        },
    ),
    "DCTLSA": ("DCTLSA", {"nf": 20, "num_modules": 6, "upscale": 2}),
    "DITN": ("DITN", {"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}),
    "DRCT": (
        "DRCT",
        {
            "img_size": 32,
            "embed_dim": 12,
            "depths": (6,),
            "num_heads": (2,),
            "window_size": 16,
            "gc": 4,
            "upscale": 2,
            "upsampler": "pixelshuffle",
        },
    ),
    "DRUNet": ("DRUNet", {"in_nc": 4, "out_nc": 3, "nc": [4, 8, 8, 16], "nb": 4}),
    "DnCNN": ("DnCNN", {"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 8, "act_mode": "R"}),
    "ESRGAN": ("ESRGAN", {"num_filters": 16, "num_blocks": 1, "scale": 2}),
    "FBCNN": ("FBCNN", {"nc": [4, 8, 8, 512], "nb": 4}),
    "FDAT": (
        "FDAT",
        {
            "scale": 2,
            "embed_dim": 16,
            "num_groups": 1,
            "depth_per_group": 1,
            "num_heads": 2,
            "mid_dim": 8,
            "upsampler_type": "pixelshuffledirect",
        },
    ),
    "FFTformer": ("FFTformer", {"dim": 8, "num_blocks": [1, 1, 1], "num_refinement_blocks": 1}),
    "GFPGAN": ("GFPGAN", {}),
    "GRL": (
        "GRL",
        {
            "img_size": 16,
            "embed_dim": 16,
            "depths": [1],
            "num_heads_window": [2],
            "num_heads_stripe": [2],
            "window_size": 8,
            "mlp_ratio": 2.0,
            "qkv_proj_type": "linear",
            "anchor_proj_type": "avgpool",
            "anchor_window_down_factor": 2,
            "out_proj_type": "linear",
            "conv_type": "1conv",
        },
    ),
    "HAT": (
        "HAT",
        {**SWIN, "embed_dim": 30, "num_heads": [2], "upscale": 2, "num_feat": 64},
    ),
    "HVICIDNet": ("HVICIDNet", {"channels": [4, 4, 8, 8], "heads": [1, 2, 2, 4]}),
    "IPT": (
        "IPT",
        {
            "patch_size": 16,
            "patch_dim": 2,
            "n_feats": 12,
            "num_heads": 12,
            "num_layers": 1,
            "scale": [2],
        },
    ),
    "KBNet": (
        "KBNet_s",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    "LaMa": ("LaMa", {"in_nc": 4, "out_nc": 3}),
    "MMRealSR": (
        "MMRealSR",
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "scale": 4,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
            "num_feats": [8, 8, 8, 8],
            "num_blocks": [1, 1, 1, 1],
        },
    ),
    "MixDehazeNet": (
        "MixDehazeNet",
        {"embed_dims": [8, 8, 16, 8, 8], "depths": [1, 1, 1, 1, 1]},
    ),
    "MoESR": (
        "MoESR",
        {"scale": 2, "dim": 16, "n_blocks": 1, "n_block": 1, "upsample_dim": 16},
    ),
    "MoSR": ("MoSR", {"upscale": 2, "n_block": 1, "dim": 16}),
    "NAFNet": (
        "NAFNet",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    ),
    "OmniSR": ("OmniSR", {"num_feat": 16, "res_num": 1, "block_num": 1, "up_scale": 2}),
    "PLKSR": ("RealPLKSR", {"dim": 16, "n_blocks": 1, "upscaling_factor": 2}),
    "RCAN": (
        "RCAN",
        {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16, "reduction": 4},
    ),
    "RGT": (
        "RGT",
        {"embed_dim": 32, "depth": [2], "num_heads": [2], "mlp_ratio": 2.0, "upscale": 2},
    ),
    "RealCUGAN": ("UpCunet2x", {}),
    "RestoreFormer": (
        "RestoreFormer",
        {"n_embed": 16, "embed_dim": 32, "ch": 32, "num_res_blocks": 1, "z_channels": 32},
    ),
    "RetinexFormer": ("RetinexFormer", {"n_feat": 8, "stage": 1, "num_blocks": [1, 1, 1]}),
    "SAFMN": ("SAFMN", {"dim": 8, "n_blocks": 1, "upscaling_factor": 2}),
    "SAFMNBCIE": ("SAFMNBCIE", {"dim": 8, "n_blocks": 1, "num_layers": 1, "upscaling_factor": 2}),
    "SCUNet": ("SCUNet", {"config": [1, 1, 1, 1, 1, 1, 1], "dim": 64}),
    "SPAN": ("SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}),
    "SeemoRe": (
        "SeemoRe",
        {"scale": 2, "num_experts": 2, "num_layers": 1, "embedding_dim": 16},
    ),
    "SwiftSRGAN": ("SwiftSRGAN", {"num_channels": 8, "num_blocks": 1, "upscale_factor": 2}),
    "Swin2SR": ("Swin2SR", {**SWIN, **UP}),
    "SwinIR": ("SwinIR", {**SWIN, "upscale": 1, "upsampler": ""}),
    "Uformer": (
        "Uformer",
        {
            "img_size": 128,
            "embed_dim": 8,
            "depths": [1] * 9,
            "num_heads": [1, 2, 2, 2, 2, 2, 2, 2, 2],
            "win_size": 8,
        },
    ),
    "SRFormer": ("SRFormer", {**SWIN, **UP}),
    "CodeFormer": (
        "CodeFormer",
        {"dim_embd": 32, "n_layers": 1, "codebook_size": 16},
    ),
    "MAT": ("MAT", {}),
    "DDColor": ("DDColor", {"encoder_name": "convnext-t", "nf": 64, "num_queries": 8}),
    "AdaCode": ("AdaCode", {"codebook_params": [[32, 8, 256]], "gt_resolution": 256}),
    "FeMaSR": ("FeMaSR", {"codebook_params": [[32, 8, 512]], "gt_resolution": 256}),
    "M3SNet": (
        "M3SNet",
        {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 1], "dec_blk_nums": [1] * 4},
    ),
    "Restormer": (
        "Restormer",
        {
            "dim": 8,
            "num_blocks": [1, 1, 1, 1],
            "num_refinement_blocks": 1,
            "heads": [1, 1, 2, 2],
        },
    ),
    "MPRNet": (
        "MPRNet",
        {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1},
    ),
    "MIRNet2": ("MIRNet2", {"n_feat": 16, "n_MRB": 1}),
}


def network(architecture: str) -> nn.Module:
    """The small variant, with random weights that are the same in every run; none is 0 or 1."""
    installed()  # imports spandrel, with a stand-in for torchvision if it does not import
    package = "spandrel_extra_arches" if architecture in EXTRA else "spandrel"
    module: Any = importlib.import_module(f"{package}.architectures.{architecture}")
    name, arguments = VARIANTS[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = getattr(module, name)(**arguments).eval()
    perturb(net, 0)
    if architecture == "SPAN":  # images in 0..255 inside: its result as large as an image
        last: Any = net.get_submodule("upsampler.0")
        with torch.no_grad():
            last.weight.mul_(0.02)
    return net
