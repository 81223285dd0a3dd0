"""Detect with an exported file, without torch: numpy, pillow and onnxruntime are enough.

python demo/onnx_demo.py MODEL.onnx IMAGE [LEAST_SCORE [TEXTS.npz]]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
stored = session.get_modelmeta().custom_metadata_map
about = {name: json.loads(text) for name, text in stored.items()}
least_score = float(sys.argv[3]) if len(sys.argv) > 3 else 0.3
texts = dict(np.load(sys.argv[4])) if len(sys.argv) > 4 else {}
classes = json.loads(str(texts.pop("classes"))) if texts else about["classes"]

image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
height, width = about["height"], about["width"]
if about["dynamic"]:  # keep the shape of the image, to the nearest size that the file takes
    longer, shorter = max(height, width), min(height, width)
    scale = min(longer / max(image.size), shorter / min(image.size))
    step = about["multiple"]
    width, height = (max(round(side * scale / step), 2) * step for side in image.size)
pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
if not about["uint8"]:
    pixels = ((pixels - np.float32(about["mean"])) / np.float32(about["std"])).transpose(2, 0, 1)
boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"image": pixels[None], **texts})
boxes = boxes[0] * np.array([*image.size, *image.size])  # from 0..1 to pixels of the image
for box, score, label in zip(boxes.round(1).tolist(), scores[0], labels[0], strict=True):
    if score >= least_score:
        print(f"{classes[label]} {score:.2f} {box}")
