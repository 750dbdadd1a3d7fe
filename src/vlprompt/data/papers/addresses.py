"""Where the papers' data sets can be fetched. Every address has a public source; none was tried by this project."""

from __future__ import annotations

from vlprompt.data.papers.row import UNKNOWN, Address, Download

COOP = "KaiyangZhou/CoOp DATASETS.md"
VISION = "pytorch/vision torchvision/datasets"
MIRROR = "zhengli97/prompt_learning_dataset on the Hub, named by zhengli97/PromptKD docs/DATASETS.md"
_REVISION = "ceb3112337fb6e1bf71534e355ca5569b63f19a6"
_OTHERS_READ = "a public repository's table of fetched files (the Hub names its own on download)"
_HUB_COMMIT = "the mirror's commit d0e6ea3"


def mirror(file: str, *, sha256: str = "", source: str = UNKNOWN, size: int | None = None) -> Address:
    """A zip of the mirror on the Hub, at a fixed revision; it brings the split file with the images."""
    return Address(
        url=f"https://huggingface.co/zhengli97/prompt_learning_dataset/resolve/{_REVISION}/{file}",
        source=MIRROR,
        checksum=f"sha256:{sha256}" if sha256 else UNKNOWN,
        checksum_source=source,
        size=size,
    )


def drive(identifier: str, file: str) -> Address:
    """A file that DATASETS.md links on Google Drive, under the address that Drive serves files from."""
    return Address(
        url=f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t",
        source=f"{COOP}, as drive.google.com/file/d/{identifier}",
        name=file,
    )


def plain_file(url: str, source: str, *, md5: str = "", checksum_source: str = UNKNOWN) -> Address:
    """An address as its source prints it."""
    return Address(url=url, source=source, checksum=f"md5:{md5}" if md5 else UNKNOWN, checksum_source=checksum_source)


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
_TORCH_UNCERTAINTY = "torch-uncertainty's ImageNet datasets"


def split(name: str, identifier: str) -> Download:
    """A split file alone."""
    return Download(gives=(name,), mirrors=(drive(identifier, name),))


CLASS_NAMES = Download(
    gives=("classnames.txt",), mirrors=(drive("1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF", "classnames.txt"),)
)

CALTECH = (
    Download(
        gives=("101_ObjectCategories",),
        mirrors=(
            mirror("caltech-101.zip"),
            plain_file(
                "http://www.vision.caltech.edu/Image_Datasets/Caltech101/101_ObjectCategories.tar.gz",
                COOP,
                md5="b224c7392d521a49829488ab0f1120d9",
                checksum_source=f"{VISION}/caltech.py",
            ),
        ),
    ),
    split("split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
)
PETS = (
    Download(
        gives=("images",),
        mirrors=(
            mirror("oxford_pets.zip"),
            plain_file(
                f"{_OXFORD}/pets/data/images.tar.gz",
                COOP,
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
                checksum_source=f"{VISION}/oxford_iiit_pet.py",
            ),
        ),
    ),
    split("split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
)
CARS = (
    Download(
        gives=("cars_train", "cars_test", "split_zhou_StanfordCars.json"),
        mirrors=(
            mirror(
                "stanford_cars.zip",
                sha256="50812812f33534ef2906b992762f96e8a5bb57b0eedc53800e91b7ed599abf8e",
                source=_OTHERS_READ,
                size=1959002685,
            ),
        ),
    ),
)
FLOWERS = (
    Download(
        gives=("jpg",),
        mirrors=(
            mirror("oxford_flowers.zip"),
            plain_file(
                f"{_OXFORD}/flowers/102/102flowers.tgz",
                COOP,
                md5="52808999861908f626f3c1f4e79d11fa",
                checksum_source=f"{VISION}/flowers102.py",
            ),
        ),
    ),
    split("split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
)
FOOD = (
    Download(
        gives=("images",),
        mirrors=(
            mirror("food101.zip"),
            plain_file(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                f"{VISION}/food101.py",
                md5="85eeb15f3717b99a5da872d97d918f87",
                checksum_source=f"{VISION}/food101.py",
            ),
        ),
    ),
    split("split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
)
AIRCRAFT = (
    Download(
        gives=(
            *("images", "variants.txt"),
            *(f"images_variant_{part}.txt" for part in ("train", "val", "test")),
        ),
        mirrors=(
            plain_file(
                f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                COOP,
                md5="d4acdd33327262359767eeaa97a4f732",
                checksum_source="several public download scripts",
            ),
            mirror("fgvc_aircraft.zip"),
        ),
    ),
)
SUN = (
    Download(
        gives=("SUN397",),
        mirrors=(
            mirror(
                "sun397.zip",
                sha256="ce6dee6685c9f1d592c8297e193dde885aa9c50d008fd998a38ccc57a3dda722",
                source=_OTHERS_READ,
                size=39182693483,
            ),
            plain_file(
                "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                COOP,
                md5="8ca2778205c41d23104230ba66911c7a",
                checksum_source=f"{VISION}/sun397.py",
            ),
        ),
    ),
    split("split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
)
DTD = (
    Download(
        gives=("images",),
        mirrors=(
            mirror(
                "dtd.zip",
                sha256="5ba4d3000e60f5541ba15a082033ca0696eee68125e9c28edff3dbe22f04313b",
                source=_HUB_COMMIT,
                size=626071992,
            ),
            plain_file(
                f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
                COOP,
                md5="fff73e5086ae6bdbea199a49dfb8a4c1",
                checksum_source=f"{VISION}/dtd.py",
            ),
        ),
    ),
    split("split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
)
EUROSAT = (
    Download(
        gives=("2750",),
        mirrors=(
            mirror("eurosat.zip"),
            plain_file(
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                f"{VISION}/eurosat.py",
                md5="c8fa014336c82ac7804f0398fcb19387",
                checksum_source=f"{VISION}/eurosat.py",
            ),
            plain_file("http://madm.dfki.de/files/sentinel/EuroSAT.zip", COOP),
        ),
    ),
    split("split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
)
UCF = (
    Download(
        gives=("UCF-101-midframes",),
        mirrors=(
            mirror(
                "ucf101.zip",
                sha256="2fe1bd40e64408d02ff173badf744da557033ae6c75dd4ea51519366551f3ae6",
                source=_OTHERS_READ,
                size=140164538,
            ),
            drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", "UCF-101-midframes.zip"),
        ),
    ),
    split("split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
)
V2 = (
    Download(
        gives=("imagenetv2-matched-frequency-format-val",),
        mirrors=(
            plain_file(
                "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                "modestyachts/ImageNetV2 README.md and tensorflow/datasets",
            ),
            plain_file("https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz", COOP),
        ),
    ),
    CLASS_NAMES,
)
ADVERSARIAL = (
    Download(
        gives=("imagenet-a",),
        mirrors=(
            plain_file(
                f"{_BERKELEY}/imagenet-a.tar",
                "hendrycks/natural-adv-examples README.md",
                md5="c3e55429088dc681f30d81f4726b6595",
                checksum_source=_TORCH_UNCERTAINTY,
            ),
            mirror("imagenet-adversarial.zip"),
        ),
    ),
    CLASS_NAMES,
)
RENDITION = (
    Download(
        gives=("imagenet-r",),
        mirrors=(
            plain_file(
                f"{_BERKELEY}/imagenet-r.tar",
                "hendrycks/imagenet-r README.md",
                md5="a61312130a589d0ca1a8fca1f2bd3337",
                checksum_source=_TORCH_UNCERTAINTY,
            ),
            mirror("imagenet-rendition.zip"),
        ),
    ),
    CLASS_NAMES,
)
_ZALANDO = "zalandoresearch/fashion-mnist README.md"


def _fashion(file: str, md5: str) -> Download:
    url = f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}"
    return Download(gives=(file,), mirrors=(plain_file(url, _ZALANDO, md5=md5, checksum_source=_ZALANDO),))


FASHION = (
    _fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
    _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
    _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
)
