"""What is known of public data sets: class names in the order of the outputs, pixel statistics."""

from collections.abc import Sequence

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, values in [0, 1]
YOLACT_MEANS, YOLACT_STDS = (103.94, 116.78, 123.68), (57.38, 57.12, 58.40)  # BGR, 0..255

_COCO = """
    person; bicycle; car; motorcycle; airplane; bus; train; truck; boat; traffic light;
    fire hydrant; stop sign; parking meter; bench; bird; cat; dog; horse; sheep; cow; elephant;
    bear; zebra; giraffe; backpack; umbrella; handbag; tie; suitcase; frisbee; skis; snowboard;
    sports ball; kite; baseball bat; baseball glove; skateboard; surfboard; tennis racket; bottle;
    wine glass; cup; fork; knife; spoon; bowl; banana; apple; sandwich; orange; broccoli; carrot;
    hot dog; pizza; donut; cake; chair; couch; potted plant; bed; dining table; toilet; tv; laptop;
    mouse; remote; keyboard; cell phone; microwave; oven; toaster; sink; refrigerator; book; clock;
    vase; scissors; teddy bear; hair drier; toothbrush
"""

_ADE20K = """
    wall; building; sky; floor; tree; ceiling; road; bed; windowpane; grass; cabinet; sidewalk;
    person; earth; door; table; mountain; plant; curtain; chair; car; water; painting; sofa;
    shelf; house; sea; mirror; rug; field; armchair; seat; fence; desk; rock; wardrobe; lamp;
    bathtub; railing; cushion; base; box; column; signboard; chest; counter; sand; sink;
    skyscraper; fireplace; refrigerator; grandstand; path; stairs; runway; case; pool; pillow;
    screen; stairway; river; bridge; bookcase; blind; coffee; toilet; flower; book; hill; bench;
    countertop; stove; palm; kitchen; computer; swivel; boat; bar; arcade; hovel; bus; towel;
    light; truck; tower; chandelier; awning; streetlight; booth; television; airplane; dirt;
    apparel; pole; land; bannister; escalator; ottoman; bottle; buffet; poster; stage; van; ship;
    fountain; conveyer; canopy; washer; plaything; swimming; stool; barrel; basket; waterfall;
    tent; bag; minibike; cradle; oven; ball; food; step; tank; trade; microwave; pot; animal;
    bicycle; lake; dishwasher; screen; blanket; sculpture; hood; sconce; vase; traffic; tray;
    ashcan; fan; pier; crt; plate; monitor; bulletin; shower; radiator; glass; clock; flag
"""


def in_levels(values: tuple[float, float, float]) -> tuple[float, float, float]:
    """ImageNet's mean or deviation for values in 0..255."""
    red, green, blue = (255.0 * value for value in values)
    return red, green, blue


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split("; "))


COCO_CLASSES = _names(_COCO)  # 80, in the order of their category ids
COCO_IDS = tuple(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
ADE20K_CLASSES = _names(_ADE20K)  # 150, the first synonym of each


def known_names(
    num_classes: int, named: Sequence[str], known: Sequence[str] = ()
) -> tuple[str, ...]:
    """Names of so many classes: `named` if they are as many, else `known` likewise, else none."""
    for names in (named, known):
        if len(names) == num_classes:
            return tuple(names)
    return ()
