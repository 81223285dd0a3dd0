"""Pictures of detections.

``drawing.draw_detections`` draws on an array and needs nothing but Pillow; ``visualizer`` and
``hook`` offer it to mmengine's runner under the names that configs use.
"""

from llmdet.visualization.drawing import draw_detections
from llmdet.visualization.hook import DetectionVisualizationHook
from llmdet.visualization.visualizer import DetLocalVisualizer

__all__ = ["DetLocalVisualizer", "DetectionVisualizationHook", "draw_detections"]
