"""Two processes that share a batch train as one that has all of it, in every mode of training."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

#: Boxes, image captions and region captions of each of four samples, two for each process: other
#: numbers of boxes and of words in one than in the other.
UNEVEN = ((1, True, True), (3, True, False), (3, False, True), (2, True, True))
IMAGES_ONLY = dict(region_captioner=None, lmm=dict(region_attention=None))
#: Settings of a model.
MODES = {
    "detection": dict(lmm=None, image_captioner=None, region_captioner=None),
    "image captions": IMAGES_ONLY,
    "region captions": dict(image_captioner=None),
    "all": {},
    "trained language model": dict(lmm=dict(frozen=False, lora=None)),
    "language model without LoRA": dict(lmm=dict(lora=None)),
    "alignment": dict(freeze_detector=True, **IMAGES_ONLY),
}
#: What one process has and the other one lacks, and what both lack.
LACKING = {
    "captions": ((2, True, True), (3, False, True), (1, False, False), (3, False, False)),
    "boxes": ((0, True, False), (0, True, False), (3, True, True), (2, True, True)),
    "all": ((0, False, False),) * 4,
}
STEPS = 2
#: Noise is drawn for a batch, which is another one in each process.
NO_NOISE = dict(
    label_noise_scale=0.0,
    box_noise_scale=0.0,
    group_cfg=dict(dynamic=False, num_groups=2),
)


@pytest.fixture
def make(make_llmdet, samples):
    """A model with these settings, and four images and samples of these kinds."""

    def build(changes, kinds):
        model = make_llmdet(dn_cfg=NO_NOISE, **changes).train()
        images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        return (
            model,
            images,
            [samples(n, image=image, regions=regions) for n, image, regions in kinds],
        )

    return build


def train(model, images, samples, wrapped=None):
    """Losses of each step, and the weights that are trained."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    steps = []
    for _ in range(STEPS):
        losses = (wrapped or model)(images, samples, mode="loss")
        optimizer.zero_grad()
        torch.stack([value.float().sum() for value in losses.values()]).sum().backward()
        unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused
        optimizer.step()
        steps.append({name: value.detach() for name, value in losses.items()})
    trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    return steps, trained


def train_share(rank, folder, model, images, samples):
    """What rank `rank` of two does."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    share = slice(2 * rank, 2 * rank + 2)
    wrapped = DistributedDataParallel(model)
    torch.save(train(model, images[share], samples[share], wrapped), folder / f"{rank}.pth")
    distributed.barrier()


def train_in_two(folder, *made):
    """Losses of each step, and weights, of two ranks; they wait for each other, but not forever."""
    children = []
    for rank in (0, 1):
        child = os.fork()
        if not child:
            signal.alarm(240)
            try:
                train_share(rank, folder, *made)
                os._exit(0)
            except BaseException as error:
                (folder / f"{rank}.error").write_text(repr(error))
                os._exit(1)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert codes == [0, 0], [path.read_text() for path in folder.glob("*.error")]
    return [torch.load(folder / f"{rank}.pth") for rank in (0, 1)]


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_equal_one(make, tmp_path, mode):
    made = make(MODES[mode], UNEVEN)
    shares = train_in_two(tmp_path, *made)
    steps, weights = train(*made)
    for number, losses in enumerate(steps):
        first, second = (share[0][number] for share in shares)
        assert first.keys() == second.keys() == losses.keys()
        mean = {name: (first[name] + second[name]) / 2 for name in losses}
        torch.testing.assert_close(mean, losses, rtol=1e-5, atol=1e-5)
    for share in shares:
        torch.testing.assert_close(share[1], weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", LACKING)
def test_ranks_that_lack_something_keep_step_with_the_others(make, tmp_path, what):
    (first, weights), (second, others) = train_in_two(tmp_path, *make({}, LACKING[what]))
    assert [losses.keys() for losses in first] == [losses.keys() for losses in second]
    assert all(value.isfinite() for losses in first + second for value in losses.values())
    for name, weight in weights.items():
        assert torch.equal(weight, others[name])
