"""Recordings of GLaMM's region encoder: maps of four layers and boxes, to features of regions.

Its faults (boxes that reach over 224 pixels of a view of 336, and count as parts of the whole image
though the view shows its middle) are asked for here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmdet.checkpoint.systems.glamm import glamm_to_llmdet
from llmdet.datasets.views import ViewSettings, make_view
from llmdet.models.regions import FusedRoIAlign, MLPConnector
from llmdet.models.regions.base import RegionBatch, batch_regions
from llmdet.models.vision.views import TowerOutput, collate_views
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import (
    Row,
    compare_exact,
    compare_mean,
    compare_recorded,
    compare_tensor,
)

#: Pixels of the view for a cell of CLIP's map.
PATCH = 14
#: Pixels of the view over which the original's boxes reach, whatever the view's size.
SCALE = 224.0
_CPU = torch.device("cpu")


@torch.no_grad()
def check(folder: Path) -> Iterator[Row]:
    """Compare everything that a folder records."""
    recorded, expected = read_json(folder / "expected.json"), read_tensors(folder / "expected.pt")
    parts = Parts(read_tensors(folder / "state_dict.pt"))
    seen, regions = _inputs(folder)
    traced = parts.trace(seen, regions)
    yield _exact_sizes(recorded, traced)
    yield compare_tensor("rois", expected.pop("rois"), traced["rois"])
    yield from _samples(expected, traced)
    yield from compare_recorded(
        {n: v for n, v in expected.items() if not n.startswith(("bf16_", "one_image_"))},
        partial(_find, traced),
    )
    yield from _few_boxes(expected, recorded, parts, seen, regions)
    yield from _half_precision(expected, read_json(folder / "deviation.json"), parts, seen, regions)


class Parts(nn.Module):
    """Region encoder and connector of ours with the weights and faults of the original."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        ours = glamm_to_llmdet({f"model.region_encoder.{k}": v for k, v in weights.items()})
        self.filler = nn.Module()
        self.filler.encoders, self.filler.connectors = nn.ModuleDict(), nn.ModuleDict()
        hidden, dims = ours["filler.connectors.region.projector.0.weight"].shape
        self.encoder = FusedRoIAlign(
            **encoder_sizes(ours), dims=dims, legacy_roi_scale=SCALE, legacy_crop=True
        )
        self.filler.encoders["region"] = self.encoder
        self.connector = MLPConnector(dims, hidden, depth=1)
        self.filler.connectors["region"] = self.connector
        self.filler.load_state_dict(
            {key.removeprefix("filler."): value.float() for key, value in ours.items()}
        )

    def features(self, seen: TowerOutput, regions: RegionBatch) -> Tensor:
        """Features [R, H] for the language model."""
        found = self.encoder(seen, regions)
        return self.connector(found.features, found.boxes)[:, 0]

    def trace(self, seen: TowerOutput, regions: RegionBatch) -> dict[str, Tensor]:
        """What flows through the encoder, under the original's names."""
        calls: dict[str, list[Tensor]] = defaultdict(list)
        encoder, handles = self.encoder, []
        watched = {f"level{n}.input_conv": conv for n, conv in enumerate(encoder.inputs)}
        watched |= {f"fuse{n}": conv for n, conv in enumerate(encoder.rounds)}
        watched |= {f"level{n}.pconv": conv for n, conv in enumerate(encoder.outputs)}
        watched |= {"flatten_linear": encoder.flatten, "pos_embedd": encoder.box_code}
        watched |= {"updims": self.connector}

        for name, module in watched.items():

            def keep(_: Any, inputs: Any, output: Tensor, name: str = name) -> None:
                calls[f"{name}.in"].append(inputs[0])
                calls[f"{name}.out"].append(output)

            handles.append(module.register_forward_hook(keep))
        features = self.features(seen, regions)
        for handle in handles:
            handle.remove()
        traced = {name: values[0] for name, values in calls.items() if "fuse" not in name}
        for name, values in calls.items():  # a round is shared by all levels
            number, _, end = name.partition(".")
            if "fuse" in name:
                traced |= {f"{number}.level{n}.{end}": each for n, each in enumerate(values)}
        for level in range(len(encoder.outputs)):
            traced[f"level{level}.roi_align.out"] = traced[f"level{level}.pconv.in"]
        traced["updims.in"] = traced["updims.in"][:, 0]
        pixels = traced["pos_embedd.in"] * SCALE
        traced["rois"] = torch.cat([regions.image[:, None].to(pixels), pixels], 1)
        parts = features.split(list(regions.counts))
        return traced | {f"img{n}.region_features": part for n, part in enumerate(parts)}


def encoder_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of a :class:`FusedRoIAlign` that weights under our names tell."""
    prefix = "filler.encoders.region."
    ours = {k.removeprefix(prefix): v.shape for k, v in weights.items() if k.startswith(prefix)}
    in_dims = ours["inputs.0.weight"][0]
    levels = len([name for name in ours if name.startswith("inputs.") and "bias" in name])
    return {
        "in_dims": in_dims,
        "levels": range(levels),
        "scales": [2**n for n in reversed(range(levels))],
        "rounds": len([name for name in ours if name.endswith(".0.weight") and "rounds" in name]),
        "bins": round((ours["flatten.weight"][1] / in_dims) ** 0.5),
        "box_dims": ours["box_code.0.weight"][0],
    }


def _inputs(folder: Path) -> tuple[TowerOutput, RegionBatch]:
    """The recorded maps as what a tower saw of the middles of images, and the boxes in pixels."""
    read = read_tensors(folder / "inputs.pt")
    maps = [read[name].float() / 24 for name in sorted(read)]  # [B, cells, C]
    side = round(maps[0].shape[1] ** 0.5)
    settings = ViewSettings((side * PATCH, side * PATCH), fit="crop")
    images = read_json(folder / "inputs.json")["images"]
    frame = collate_views(
        [make_view(np.zeros((*each["orig_hw"], 3), np.uint8), settings) for each in images]
    ).frame
    boxes = [
        torch.tensor(each["boxes_xyxy_pixels"])[each["order_after_randperm"]] for each in images
    ]
    levels = tuple(each.mT.unflatten(2, (side, side)) for each in maps)
    ratios = torch.ones(len(images), len(maps), 2)
    regions = batch_regions([len(each) for each in boxes], _CPU, boxes=torch.cat(boxes).float())
    return TowerOutput(maps[-1], levels, ratios, frame), regions


def _exact_sizes(recorded: Mapping[str, Any], traced: Mapping[str, Tensor]) -> Row:
    wanted = recorded["map_shapes_given_to_roi_align"]
    ours = {name: list(traced[f"{name}.input_conv.out"].shape) for name in wanted}
    return compare_exact("sizes of maps", wanted, ours)


def _samples(expected: dict[str, Tensor], traced: Mapping[str, Tensor]) -> Iterator[Row]:
    """Thinned maps, which this takes out of ``expected``."""
    for name in [each for each in expected if each.endswith((".sample", "[coords]"))]:
        wanted = expected.pop(name)
        coordinates = name.endswith("[coords]")
        map_ = traced[name.removesuffix("[coords]").removesuffix(".sample")]
        if coordinates:
            map_ = map_[:1, -2:]
        more = 0 if coordinates else 1
        usual = 1 if coordinates else 9, map_.shape[-2] // 12, map_.shape[-1] // 12 + more
        channels, rows, columns = (
            _stride(*each) for each in zip(map_.shape[1:], wanted.shape[1:], usual, strict=True)
        )
        yield compare_tensor(name, wanted, map_[:, ::channels, ::rows, ::columns])


def _stride(count: int, kept: int, usual: int) -> int:
    """Which stride leaves ``kept`` of ``count``: the one that was used where it does."""
    fitting = [step for step in range(1, count + 1) if -(-count // step) == kept]
    return usual if usual in fitting or not fitting else fitting[0]


def _few_boxes(
    expected: Mapping[str, Tensor],
    recorded: Mapping[str, Any],
    parts: Parts,
    seen: TowerOutput,
    regions: RegionBatch,
) -> Iterator[Row]:
    """Batches in which only the first image has boxes, or none."""
    assert regions.boxes is not None
    for prefix, count in (("one_image_with_boxes.", regions.counts[0]), ("", 0)):
        counts = [count] + [0] * (len(regions.counts) - 1)
        few = batch_regions(counts, _CPU, boxes=regions.boxes[:count])
        split = parts.features(seen, few).split(counts)
        named = {f"{prefix}img{n}.region_features": part for n, part in enumerate(split)}
        if prefix:
            there = {n: v for n, v in expected.items() if n.startswith(prefix)}
            yield from compare_recorded(there, partial(_find, named))
        else:
            shapes = {name: list(part.shape) for name, part in named.items()}
            yield compare_exact("without boxes", recorded["all_images_without_boxes"], shapes)


def _half_precision(
    expected: Mapping[str, Tensor],
    deviation: Mapping[str, Any],
    parts: Parts,
    seen: TowerOutput,
    regions: RegionBatch,
) -> Iterator[Row]:
    """What weights of 16 bits give; boxes of the original's evaluation have 16 bits too."""
    parts.bfloat16()
    places = parts.encoder.places(seen, regions)
    half = places.half().bfloat16()
    extent = torch.tensor(seen.frame.size[::-1]).repeat(2)
    for prefix, boxes in (("bf16_train.", places), ("bf16_eval.", half)):
        limits = deviation[f"{prefix[:-1]}_mean_rel_dev_vs_fp32"]
        rois = (boxes * SCALE).float()
        found = {"rois": torch.cat([regions.image[:, None].float(), rois], 1)}
        maps = [each.bfloat16() for each in seen.maps]
        pooled = parts.encoder.pooled(maps, rois / extent, regions.image)
        found |= {f"level{n}.roi_align.out": each for n, each in enumerate(pooled)}
        features = parts.connector(parts.encoder.joined(pooled, boxes), boxes)
        split = features.split(list(regions.counts))
        found |= {f"img{n}.region_features": part for n, part in enumerate(split)}
        named = {prefix + name: value.float() for name, value in found.items()}
        there = {name: value for name, value in expected.items() if name.startswith(prefix)}
        exact = {name: there.pop(name) for name in list(there) if name.endswith("rois")}
        find = partial(_find, named)
        yield from compare_recorded(exact, find)
        yield from compare_recorded(there, find, partial(compare_mean, limit=max(limits.values())))


def _find(found: Mapping[str, Tensor], name: str, _: int) -> Tensor | None:
    return found.get(name)
