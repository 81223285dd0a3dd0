"""Object Detection in the Wild (ODinW): the 35 sets, and the mean over 13 or all of them.

The table is the only place where the sets are listed; configs and the offline evaluator read it.
Source of names, folders, class-name overrides and prompts: ELEVATER (Li et al. 2022) and its
detection suite as used with GLIP and MM-Grounding-DINO.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from llmdet.errors import DataError

SetGroup = Literal["odinw13", "odinw35", "present"]
SUFFIXES = (".jsonl", ".json", ".json.gz", ".npz")


@dataclasses.dataclass(frozen=True)
class OdinwSet:
    """One set: where it lies and what its classes are called in the prompt."""

    name: str
    folder: str  # under the root of ODinW
    names: str  # of the classes, in the order of the annotation file, divided by |
    flat: bool = False  # images and val_annotations lie together, not in valid/
    renamed: bool = False  # classes replace uninformative names of the annotation file
    prompts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the categories of the annotation file."""
        return tuple(self.names.split("|"))

    @property
    def ann_file(self) -> str:
        """Annotation file relative to the root of ODinW."""
        name = "annotations_without_background.json"
        return f"{self.folder}/val_{name}" if self.flat else f"{self.folder}/valid/{name}"

    @property
    def image_folder(self) -> str:
        """Image folder relative to the root of ODinW."""
        return f"{self.folder}/" if self.flat else f"{self.folder}/valid/"


ODINW35 = (
    OdinwSet(
        "AerialMaritimeDrone_large",
        "AerialMaritimeDrone/large",
        "boat|car|dock|jetski|lift",
    ),
    OdinwSet(
        "AerialMaritimeDrone_tiled",
        "AerialMaritimeDrone/tiled",
        "boat|car|dock|jetski|lift",
    ),
    OdinwSet(
        "AmericanSignLanguageLetters",
        "AmericanSignLanguageLetters/American Sign Language Letters.v1-v1.coco",
        "A|B|C|D|E|F|G|H|I|J|K|L|M|N|O|P|Q|R|S|T|U|V|W|X|Y|Z",
    ),
    OdinwSet(
        "Aquarium",
        "Aquarium/Aquarium Combined.v2-raw-1024.coco",
        "fish|jellyfish|penguin|puffin|shark|starfish|stingray",
    ),
    OdinwSet(
        "BCCD",
        "BCCD/BCCD.v3-raw.coco",
        "Platelets|RBC|WBC",
    ),
    OdinwSet(
        "boggleBoards",
        "boggleBoards/416x416AutoOrient/export",
        "Q|a|an|b|c|d|e|er|f|g|h|he|i|in|j|k|l|m|n|o|o |p|q|qu|r|s|t|t\\|th|u|v|w|wild|x|y|z",
        flat=True,
    ),
    OdinwSet(
        "brackishUnderwater",
        "brackishUnderwater/960x540",
        "crab|fish|jellyfish|shrimp|small_fish|starfish",
    ),
    OdinwSet(
        "ChessPieces",
        "ChessPieces/Chess Pieces.v23-raw.coco",
        "  |black bishop|black king|black knight|black pawn|black queen|black rook|"
        "white bishop|white king|white knight|white pawn|white queen|white rook",
        renamed=True,
    ),
    OdinwSet(
        "CottontailRabbits",
        "CottontailRabbits",
        "rabbit",
        renamed=True,
    ),
    OdinwSet(
        "dice",
        "dice/mediumColor/export",
        "1|2|3|4|5|6",
        flat=True,
    ),
    OdinwSet(
        "DroneControl",
        "DroneControl/Drone Control.v3-raw.coco",
        "follow|follow_hand|land|land_hand|null|object|takeoff|takeoff-hand",
    ),
    OdinwSet(
        "EgoHands_generic",
        "EgoHands/generic",
        "hand",
        prompts={"hand": {"suffix": " of a person"}},
    ),
    OdinwSet(
        "EgoHands_specific",
        "EgoHands/specific",
        "myleft|myright|yourleft|yourright",
    ),
    OdinwSet(
        "HardHatWorkers",
        "HardHatWorkers/raw",
        "head|helmet|person",
    ),
    OdinwSet(
        "MaskWearing",
        "MaskWearing/raw",
        "mask|no-mask",
    ),
    OdinwSet(
        "MountainDewCommercial",
        "MountainDewCommercial",
        "bottle",
    ),
    OdinwSet(
        "NorthAmericaMushrooms",
        "NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco",
        "flat mushroom|yellow mushroom",
        renamed=True,
    ),
    OdinwSet(
        "openPoetryVision",
        "openPoetryVision/512x512",
        "American Typewriter|Andale Mono|Apple Chancery|Arial|Avenir|Baskerville|"
        "Big Caslon|Bradley Hand|Brush Script MT|Chalkboard|Comic Sans MS|Copperplate|"
        "Courier|Didot|Futura|Geneva|Georgia|Gill Sans|Helvetica|Herculanum|Impact|Kefa|"
        "Lucida Grande|Luminari|Marker Felt|Menlo|Monaco|Noteworthy|Optima|PT Sans|"
        "PT Serif|Palatino|Papyrus|Phosphate|Rockwell|SF Pro|SignPainter|Skia|"
        "Snell Roundhand|Tahoma|Times New Roman|Trebuchet MS|Verdana",
    ),
    OdinwSet(
        "OxfordPets_by_breed",
        "OxfordPets/by-breed",
        "cat-Abyssinian|cat-Bengal|cat-Birman|cat-Bombay|cat-British_Shorthair|"
        "cat-Egyptian_Mau|cat-Maine_Coon|cat-Persian|cat-Ragdoll|cat-Russian_Blue|"
        "cat-Siamese|cat-Sphynx|dog-american_bulldog|dog-american_pit_bull_terrier|"
        "dog-basset_hound|dog-beagle|dog-boxer|dog-chihuahua|dog-english_cocker_spaniel|"
        "dog-english_setter|dog-german_shorthaired|dog-great_pyrenees|dog-havanese|"
        "dog-japanese_chin|dog-keeshond|dog-leonberger|dog-miniature_pinscher|"
        "dog-newfoundland|dog-pomeranian|dog-pug|dog-saint_bernard|dog-samoyed|"
        "dog-scottish_terrier|dog-shiba_inu|dog-staffordshire_bull_terrier|"
        "dog-wheaten_terrier|dog-yorkshire_terrier",
    ),
    OdinwSet(
        "OxfordPets_by_species",
        "OxfordPets/by-species",
        "cat|dog",
    ),
    OdinwSet(
        "PKLot",
        "PKLot/640",
        "space-empty|space-occupied",
    ),
    OdinwSet(
        "Packages",
        "Packages/Raw",
        "package",
        prompts={"package": {"prefix": "there is a ", "suffix": " on the porch"}},
    ),
    OdinwSet(
        "PascalVOC",
        "PascalVOC",
        "aeroplane|bicycle|bird|boat|bottle|bus|car|cat|chair|cow|diningtable|dog|horse|"
        "motorbike|person|pottedplant|sheep|sofa|train|tvmonitor",
    ),
    OdinwSet(
        "pistols",
        "pistols/export",
        "pistol",
        flat=True,
    ),
    OdinwSet(
        "plantdoc",
        "plantdoc/416x416",
        "Apple Scab Leaf|Apple leaf|Apple rust leaf|Bell_pepper leaf|Bell_pepper leaf spot|"
        "Blueberry leaf|Cherry leaf|Corn Gray leaf spot|Corn leaf blight|Corn rust leaf|"
        "Peach leaf|Potato leaf|Potato leaf early blight|Potato leaf late blight|"
        "Raspberry leaf|Soyabean leaf|Soybean leaf|Squash Powdery mildew leaf|"
        "Strawberry leaf|Tomato Early blight leaf|Tomato Septoria leaf spot|Tomato leaf|"
        "Tomato leaf bacterial spot|Tomato leaf late blight|Tomato leaf mosaic virus|"
        "Tomato leaf yellow virus|Tomato mold leaf|Tomato two spotted spider mites leaf|"
        "grape leaf|grape leaf black rot",
    ),
    OdinwSet(
        "pothole",
        "pothole",
        "pothole",
        prompts={
            "pothole": {"name": "holes", "prefix": "there are some ", "suffix": " on the road"}
        },
    ),
    OdinwSet(
        "Raccoons",
        "Raccoon/Raccoon.v2-raw.coco",
        "raccoon",
    ),
    OdinwSet(
        "selfdrivingCar",
        "selfdrivingCar/fixedLarge/export",
        "biker|car|pedestrian|trafficLight|trafficLight-Green|trafficLight-GreenLeft|"
        "trafficLight-Red|trafficLight-RedLeft|trafficLight-Yellow|trafficLight-YellowLeft|"
        "truck",
        flat=True,
    ),
    OdinwSet(
        "ShellfishOpenImages",
        "ShellfishOpenImages/raw",
        "Crab|Lobster|Shrimp",
    ),
    OdinwSet(
        "ThermalCheetah",
        "ThermalCheetah",
        "cheetah|human",
    ),
    OdinwSet(
        "thermalDogsAndPeople",
        "thermalDogsAndPeople",
        "dog|person",
    ),
    OdinwSet(
        "UnoCards",
        "UnoCards/raw",
        "0|1|2|3|4|5|6|7|8|9|10|11|12|13|14",
    ),
    OdinwSet(
        "VehiclesOpenImages",
        "VehiclesOpenImages/416x416",
        "Ambulance|Bus|Car|Motorcycle|Truck",
    ),
    OdinwSet(
        "WildfireSmoke",
        "WildfireSmoke",
        "smoke",
    ),
    OdinwSet(
        "websiteScreenshots",
        "websiteScreenshots",
        "button|field|heading|iframe|image|label|link|text",
    ),
)

ODINW13_NAMES = frozenset(
    {
        "AerialMaritimeDrone_large",
        "Aquarium",
        "CottontailRabbits",
        "EgoHands_generic",
        "NorthAmericaMushrooms",
        "Packages",
        "PascalVOC",
        "pistols",
        "pothole",
        "Raccoons",
        "ShellfishOpenImages",
        "thermalDogsAndPeople",
        "VehiclesOpenImages",
    }
)
ODINW13 = tuple(entry for entry in ODINW35 if entry.name in ODINW13_NAMES)


def mean_ap(values: Mapping[str, float]) -> float:
    """Plain mean of the APs of the sets, not rounded first (published tables average rounded
    values, which differs in the third decimal)."""
    if not values:
        raise DataError("there are no ODinW sets to average")
    return sum(values.values()) / len(values)


def choose_sets(group: SetGroup, predictions: Path) -> tuple[OdinwSet, ...]:
    """The sets of a group; ``present`` means those of the 35 that have a prediction file.

    Raises:
        DataError: sets of the group have no prediction file.
    """
    chosen = ODINW13 if group == "odinw13" else ODINW35
    present = tuple(entry for entry in chosen if _files(predictions, entry))
    if group == "present":
        return present
    missing = [entry.name for entry in chosen if entry not in present]
    if missing:
        raise DataError(
            f"{predictions} has no prediction file for {len(missing)} of {len(chosen)} sets: "
            f"{', '.join(missing)}; files are named SET.jsonl, SET.json or SET.npz"
        )
    return chosen


def prediction_file(predictions: Path, entry: OdinwSet) -> Path:
    """The prediction file of a set: ``NAME.jsonl``, ``.json``, ``.json.gz`` or ``.npz``."""
    files = _files(predictions, entry)
    if len(files) != 1:
        raise DataError(f"{predictions} has {len(files)} prediction files for {entry.name}, not 1")
    return files[0]


def dataset_configs(group: SetGroup, root: str, pipeline: list[Any]) -> dict[str, dict[str, Any]]:
    """Config of the data set of every set of a group, by name.

    Args:
        group: ``odinw13`` or ``odinw35``.
        root: root folder of ODinW.
        pipeline: test pipeline.
    """
    configs = {}
    for entry in ODINW13 if group == "odinw13" else ODINW35:
        configs[entry.name] = {
            "type": "RenamedCocoDataset" if entry.renamed else "CocoDataset",
            "metainfo": {"classes": entry.classes},
            "data_root": root,
            "ann_file": entry.ann_file,
            "data_prefix": {"img": entry.image_folder},
            "pipeline": pipeline,
            "test_mode": True,
            "return_classes": True,
            "caption_prompt": {name: dict(parts) for name, parts in entry.prompts.items()} or None,
        }
    return configs


def metric_configs(group: SetGroup, root: str) -> dict[str, dict[str, Any]]:
    """Config of the metric of every set of a group, by name."""
    return {
        entry.name: {"type": "CocoMetric", "ann_file": f"{root.rstrip('/')}/{entry.ann_file}"}
        for entry in (ODINW13 if group == "odinw13" else ODINW35)
    }


def _files(folder: Path, entry: OdinwSet) -> list[Path]:
    candidates = [folder / f"{entry.name}{suffix}" for suffix in SUFFIXES]
    return [path for path in candidates if path.is_file()]
