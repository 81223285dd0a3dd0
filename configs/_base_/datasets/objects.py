"""Conversations about candidate boxes as JSONL (docs/regions.md); what each stage reads."""

_base_ = "../prompts/objects.py"

data_root = "data/objects/"
picture_folders = []  # where links below data_root lead to

caption_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
talk_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="MixCandidates"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
box_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="AskForObjects", wordings=_base_.object_wordings),
    dict(type="MixCandidates"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
part = dict(
    type="ODVGDataset",
    data_root=data_root,
    data_prefix=dict(img=""),
    picture_folders=picture_folders,
    use_uniform_prompt=False,
    clean_caption=False,
)
captions = dict(**part, filter_cfg=dict(filter_empty_gt=False), pipeline=caption_pipeline)
talks = dict(**part, filter_cfg=dict(filter_empty_gt=False), pipeline=talk_pipeline)
boxes = dict(**part, filter_cfg=dict(filter_empty_gt=True), pipeline=box_pipeline)

stage_one = [dict(**captions, ann_file="allava_caption.jsonl")]
stage_two = [
    # Questions about classes are made beforehand: rows of boxes tell neither which classes have a
    # crowd nor which ones LVIS and PACO say are absent.
    dict(**talks, ann_file="coco.jsonl"),
    dict(**talks, ann_file="objects365.jsonl"),
    dict(**talks, ann_file="lvis.jsonl"),
    # So are those of RefCOCO, whose rows of boxes lack the objects that an expression excludes.
    dict(**talks, ann_file="refcoco.jsonl"),
    dict(**talks, ann_file="refcoco+.jsonl"),
    dict(**talks, ann_file="refcocog.jsonl"),
    dict(**boxes, ann_file="rexverse_referring.jsonl"),
    dict(**talks, ann_file="rexverse_descriptions.jsonl"),
]
stage_three = [
    *stage_two,
    dict(**talks, ann_file="crowdhuman.jsonl"),
    dict(**talks, ann_file="paco.jsonl"),
    dict(**talks, ann_file="mvdp.jsonl"),
    dict(**talks, ann_file="osprey.jsonl"),
    dict(**talks, ann_file="vcr.jsonl"),
    dict(**captions, ann_file="allava_instruct.jsonl"),
    dict(**captions, ann_file="llava_instruct.jsonl"),
    dict(**captions, ann_file="llava_onevision.jsonl"),
]
stage_four = [
    dict(**talks, ann_file="humanref_cot.jsonl"),
    dict(**talks, ann_file="humanref_cot_rejection.jsonl"),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="ConcatDataset", datasets=stage_one),
)
