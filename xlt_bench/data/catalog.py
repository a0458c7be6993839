"""Lists the data sets: licence, citation and, for each file, its address and sha256.

Addresses in a repository name a commit. The checksums are in digests.json, which `data.pin` writes.
MASSIVE's locales other than en-US, FLORES-200 and UNER's released English train file have none:
the publisher's own file was not available when the checksums were computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from xlt_bench.data import alma, digests, massive, ntrex, tatoeba, uner, wmt23
from xlt_bench.languages import LANGUAGES

_GITHUB = "https://raw.githubusercontent.com"
_MASSIVE = "https://amazon-massive-nlu-dataset.s3.amazonaws.com/amazon-massive-dataset-1.1.tar.gz"
_FLORES = "https://dl.fbaipublicfiles.com/nllb/flores200_dataset.tar.gz"
_WMT23 = f"{_GITHUB}/wmt-conference/wmt23-news-systems/99b5b9de2a535c2c5542fd4ec404682903299894/txt"
_ALMA = f"{_GITHUB}/fe1ixxu/ALMA/10360c33dc875c747315dcf0a5be0d48472c7a4c/human_written_data"
_LASER = (
    f"{_GITHUB}/facebookresearch/LASER/74bc6ae7ffb7cba670fe0f428d0ede9f666fb821/data/tatoeba/v1"
)
_CHALLENGE = (
    f"{_GITHUB}/Helsinki-NLP/OPUS-MT-testsets/ac0f19c0be3cb4e0d9450fcb2d7a9847c4bdd180/"
    "datasets/helsinki_nlp/tatoeba/testsets"
)
_NTREX = f"{_GITHUB}/MicrosoftTranslator/NTREX/8561f6a622db9edad1217683e5c83daefd8bb2bf"
_UNER_COMMITS = {
    "Chinese-GSD": "2a0c196d7a54d41119fd069874e976a58f0d7dad",
    "Chinese-GSDSIMP": "1f0307599dece7b83f4cba90ce9b63ef37a7b162",
    "Croatian-SET": "20dcb2ef6b6bf9d5e03605a74c4d87215a1574c1",
    "Danish-DDT": "983c4cdc09f8ece6069d2b692b60dc4b3649ec6e",
    "English-EWT": "8ed072de2fd24022cc62458997fe96a8fe191ea4",
    "Portuguese-Bosque": "f2c2ad67aed900385fbe5d655af41f439c9b3333",
    "Serbian-SET": "0d9685f001c10895572d844ef789c53dade0e265",
    "Slovak-SNK": "886e7c6d7e066e23246af5070d115a036a465c6d",
    "Swedish-Talbanken": "dbb692085267da83a35d1e1d2c111671b3c7c46b",
}


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        path: Where the file belongs, relative to the data folder.
        url: Address of the file or, if `member` is set, of the tar.gz that contains it.
        sha256: Checksum of the uncompressed file; None if unknown.
        member: Name of the file in the tar.gz.
    """

    path: str
    url: str
    sha256: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set: its title, its licence, what to cite, and its files."""

    name: str
    title: str
    licence: str
    citation: str
    files: tuple[File, ...]


def _file(path: str, url: str, member: str | None = None) -> File:
    return File(path, url, digests.file_sums().get(path), member)


def _massive() -> Dataset:
    members = [f"1.1/data/{locale}.jsonl" for locale in massive.LOCALES]
    members += ["1.1/LICENSE", "1.1/NOTICE.md"]
    return Dataset(
        "massive",
        f"MASSIVE 1.1, {len(massive.LOCALES)} locales",
        "CC BY 4.0",
        "FitzGerald et al. 2023 (arXiv 2204.08582); Bastianelli et al. 2020 (SLURP)",
        tuple(_file(f"massive/{member}", _MASSIVE, member) for member in members),
    )


def _flores() -> Dataset:
    names = [f"{s}/{row.flores}.{s}" for s in ("dev", "devtest") for row in LANGUAGES.values()]
    names += ["metadata_dev.tsv", "metadata_devtest.tsv", "README"]
    members = [f"flores200_dataset/{name}" for name in names]
    return Dataset(
        "flores",
        f"FLORES-200, {len(LANGUAGES)} languages",
        "CC BY-SA 4.0",
        "NLLB Team 2022 (arXiv 2207.04672); Goyal et al. 2022; Guzmán et al. 2019",
        tuple(_file(member, _FLORES, member) for member in members),
    )


def _uner() -> Dataset:
    files = []
    for treebank, commit in _UNER_COMMITS.items():
        names = [f"{uner.TREEBANKS[treebank]}-ud-{s}.iob2" for s in uner.SPLITS.values()]
        for name in [*names, "LICENSE.txt"]:
            url = f"{_GITHUB}/UniversalNER/UNER_{treebank}/{commit}/{name}"
            files.append(_file(f"uner/UNER_{treebank}/{name}", url))
    return Dataset(
        "uner",
        "Universal NER v1, 8 languages",
        "CC BY-SA 4.0",
        "Mayhew et al. 2024 (arXiv 2311.09122)",
        tuple(files),
    )


def _wmt23() -> Dataset:
    names = []
    for direction in wmt23.DIRECTIONS:
        source, target = direction.split("-")
        stem = f"generaltest2023.{direction}"
        names.append(f"sources/{stem}.src.{source}")
        names += [f"references/{stem}.ref.{r}.{target}" for r in wmt23.references(direction)]
    return Dataset(
        "wmt23",
        "WMT23 general translation, 13 directions",
        "research use",
        "Kocmi et al. 2023 (Findings of WMT23)",
        tuple(_file(f"wmt23/{name}", f"{_WMT23}/{name}") for name in names),
    )


def _alma() -> Dataset:
    names = []
    for x in alma.LANGUAGES:
        names += [f"{x}en/test.{x}-en.json", f"{x}en/test.en-{x}.json"]
        names += [f"{x}en/train.{x}-en.{x}", f"{x}en/train.{x}-en.en"]
        if x in alma.VALIDATED:
            names.append(f"{x}en/valid.{x}-en.json")
    return Dataset(
        "alma",
        "ALMA's human-written parallel data",
        "MIT; texts as WMT and FLORES",
        "Xu et al. 2024 (arXiv 2309.11674)",
        tuple(_file(f"alma_human_written/{name}", f"{_ALMA}/{name}") for name in names),
    )


def _tatoeba() -> Dataset:
    paths = [path for code in tatoeba.LASER_LANGUAGES for path in tatoeba.laser_files(code)]
    files = [_file(path, f"{_LASER}/{path.rsplit('/', 1)[1]}") for path in paths]
    # A dict, because Serbian and Croatian share one folder.
    challenge = dict.fromkeys(
        path
        for code in tatoeba.CHALLENGE_LANGUAGES
        for path in tatoeba.challenge_files(code)
        if path
    )
    below = len(f"tatoeba/{tatoeba.CHALLENGE}/")
    files += [_file(path, f"{_CHALLENGE}/{path[below:]}") for path in challenge]
    return Dataset(
        "tatoeba",
        "Tatoeba pairs with English: LASER v1 and Challenge v2021-08-07",
        "CC BY 2.0 FR",
        "Artetxe and Schwenk 2019 (LASER); Tiedemann 2020 (Tatoeba Challenge)",
        tuple(files),
    )


def _ntrex() -> Dataset:
    paths = [ntrex.path_of(row.ntrex) for row in LANGUAGES.values() if row.ntrex]
    below = len("ntrex/")
    return Dataset(
        "ntrex",
        f"NTREX-128, {len(paths)} languages",
        "CC BY-SA 4.0",
        "Federmann, Kocmi and Xin 2022 (NTREX-128, SUMEval)",
        tuple(_file(path, f"{_NTREX}/{path[below:]}") for path in paths),
    )


@cache
def catalog() -> MappingProxyType[str, Dataset]:
    """Every data set by name, in the order in which they are fetched and checked."""
    rows = (_massive(), _flores(), _uner(), _wmt23(), _alma(), _tatoeba(), _ntrex())
    return MappingProxyType({row.name: row for row in rows})
