"""The table of photos: where each is found, who took it, and which split it belongs to.

The images are not in the repository; `fetch.py` gets them. Author and licence are those that the
package states for the single file (GCompris: the README beside the images; Lomiri: the package's
copyright file; Palapeli: the file beside the image; scikit-image: the docstrings of its data
module). The splits contain different files, fixed here by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Photo:
    """One photo of the table.

    Attributes:
        name: file name in a folder of photos.
        package: the Debian package or the wheel that ships it.
        member: its path in the package; for GCompris "ARCHIVE:PATH" of a Qt resource archive.
        author, licence: as the package states them.
        split: the split that it belongs to.
    """

    name: str
    package: str
    member: str
    author: str
    licence: str
    split: Split


# Columns: split | file, without its suffix | author | licence
_ERASE = """
train | alpaca | Dietmar Rabich | CC-BY-SA-4.0
train | calf | Basile Morin | CC-BY-SA-4.0
test  | camels | Alexandr frolov | CC-BY-SA-4.0
train | chamaeleon | Benny Trapp | CC-BY-3.0
test  | cheetah | Charles J. Sharp | CC-BY-SA-4.0
train | crab | Nosferattus | CC0-1.0
train | flying_fox | Andrew Mercer | CC-BY-SA-4.0
train | gibbon | JJ Harrison | CC-BY-3.0
train | giraffe | Sergio Cambelo | public domain
val   | goat | JoachimKohlerBremen | CC-BY-SA-4.0
train | gorilla | Charles J. Sharp | CC-BY-SA-4.0
train | gosling | Stephan Sprinz | CC-BY-SA-4.0
train | horse | Eatcha | CC-BY-SA-4.0
train | kingfisher | Frank-2.0 | CC0-1.0
val   | kitten | GalgenTX | CC-BY-2.0
train | macaque | PJeganathan | CC-BY-SA-4.0
train | meerkats | Charles J. Sharp | CC-BY-SA-4.0
train | nubian_ibex | Rhododendrites | CC-BY-SA-4.0
train | penguin | Gordon Leggett | CC-BY-SA-4.0
train | pika | NPS Climate Change Response | public domain
test  | red_panda | Mathias Appel | CC0-1.0
train | rhinoceros | Charles J. Sharp | CC-BY-SA-4.0
train | squirrel | Roman Naumov | CC-BY-SA-4.0
train | swans | Charles J. Sharp | CC-BY-SA-4.0
train | toucan | LG Nyqvist | CC-BY-SA-4.0
"""
_MONUMENTS = """
train | egypt/greatPyramidOfGiza | Gary Todd | CC0-1.0
train | egypt/meidumPyramid | Neithsabes | public domain
train | france/arlesAmphitheater | OT Arles | public domain
train | france/chateaudeChambord | BjörnT | public domain
train | france/chateaudeChenonceau | Alf van Beem | public domain
train | france/citedeCarcassonne | Petitemontagnedujura | public domain
train | france/eiffelTower | Tognopop | public domain
train | france/montStMichel | Ali Sabbagh | CC0-1.0
train | france/palaisdesPapes | Tognopop | CC0-1.0
train | france/pontduGard | Mimova | public domain
train | france/reimsCathedral | Mattana | public domain
train | france/rocamadour | François Darras | public domain
train | germany/aulaPalatina | Berthold Werner | public domain
test  | germany/berlinCathedral | Gary Todd | CC0-1.0
train | germany/brandenburgGate | Evans1551 | public domain
train | germany/neuschwansteinCastle | cameralends | CC0-1.0
val   | germany/schwerinPalace | Hermann Luyken | CC0-1.0
train | germany/trierImperialBaths | Berthold Werner | public domain
train | germany/wormsCathedral | Immanuel Giel | public domain
train | india/ajantaCave | Jonathanawhite | public domain
train | india/charminar | Goutamkhandelwal | public domain
train | india/gatewayofIndia | Simon Steinberger | CC0-1.0
train | india/goldenTemple | Jasdeep Singh | CC0-1.0
train | india/greatStupa | ArnoldBetten | public domain
test  | india/hawaMahal | Janwiki | public domain
train | india/konarkSunTemple | Tetraktys | public domain
test  | india/mysorePalace | Shiva sg | public domain
train | india/qutubMinar | pramadas | CC0-1.0
train | india/victoriaMemorial | Anourag | CC0-1.0
train | usa/canyondeChelly | Nikater | public domain
train | usa/castillodeSanMarcos | National Park Service | public domain
train | usa/fortSumter | Gary Todd | CC0-1.0
train | usa/lincolnMemorial | Brylie Christopher Oxley | CC0-1.0
train | usa/mountRushmore | Eekim | CC0-1.0
train | usa/navajo | Jon Sullivan | public domain
train | usa/statueofLiberty | Ypsilonatshared | public domain
train | wonders/chichenItza | Daniel Schwen | CC-BY-SA-4.0
test  | wonders/christTheRedeemer | Chensiyuan | CC-BY-SA-4.0
val   | wonders/colosseum | Urse Ovidiu | public domain
train | wonders/greatWallofChina | Nicolas Perrault III | CC0-1.0
train | wonders/machuPicchu | Guillaume Pascal | CC0-1.0
test  | wonders/petra | Berthold Werner | public domain
train | wonders/tajMahal | Yann | CC-BY-SA-4.0
"""
_FARM = """
train | chicken | Tranquilles | public domain
test  | cow | Dohduhdah | public domain
test  | dog | Hans Kemperman | public domain
train | horse | Seth Zeigler | CC0-1.0
train | pig | Teinesavaii | public domain
val   | sheep | Rob Mitchell | CC0-1.0
"""
_WORLD = """
train | bison | Kurt Kaiser | CC0-1.0
train | chameleon | Nilesh1104 | public domain
train | crocodile | Djambalawa | public domain
train | dragon | TimVickers | public domain
val   | giraffe | Mike and Lara Wolfe | CC0-1.0
train | hedgehog | George Chernilevsky | public domain
train | jaguar | Frieda Bredesen | CC0-1.0
test  | kangaroo | Vicki Nunn | public domain
train | koala | BurningWell | public domain
test  | lemur | Mathias Appel | CC0-1.0
train | moose | Ryan Hagerty | public domain
train | narwhal | Dr Kristin Laidre | public domain
train | polar_bear | anonymous | public domain
"""
_MUSIC = """
train | africa | Kenneth Ritchards | public domain
test  | america | Tom Harpel | CC-BY-2.0
train | australia | Steve Evans | CC-BY-2.0
train | ireland | candyschwartz | CC-BY-2.0
train | italy | SoriamuséuM | CC0-1.0
val   | japan | takami torao | public domain
train | mexico | Elidealista | CC0-1.0
test  | orchestra | ABC Informática | public domain
"""
_PALAPELI = """
test  | cincinnati-bridge | Derek Jensen | public domain
train | citrus-fruits | US Department of Agriculture | public domain
train | european-honey-bee | John Severns | public domain
"""
_LOMIRI = """
train | aitzgorri_by_Aitzol_Berasategi | Aitzol Berasategi | CC-BY-4.0
train | Dragonfly_by_Bolly | Bolly | CC-BY-SA-4.0
test  | friends_by_Aitzol_Berasategi | Aitzol Berasategi | CC-BY-4.0
val   | life_by_Aitzol_Berasategi | Aitzol Berasategi | CC-BY-4.0
train | picosdeeuropa_by_Aitzol_Berasategi | Aitzol Berasategi | CC-BY-4.0
train | Picture_0B_by_freespace | Trevor "Freespace" | CC-BY-4.0
test  | Picture_1A_by_freespace | Trevor "Freespace" | CC-BY-4.0
train | Wine_by_Jakkub_Mede | Jakub Mede | CC-BY-4.0
"""
_SKIMAGE = """
test  | astronaut.png | NASA | public domain
test  | chelsea.png | Stefan van der Walt | CC0-1.0
test  | coffee.png | Rachel Michetti | CC0-1.0
test  | rocket.jpg | SpaceX | public domain
"""
_GCOMPRIS = (
    ("erase", "erase", "", _ERASE),
    ("monuments", "explore_monuments", "", _MONUMENTS),
    ("farm", "explore_farm_animals", "animals/", _FARM),
    ("world", "explore_world_animals", "animals/", _WORLD),
    ("music", "explore_world_music", "music/", _MUSIC),
)


def _rows(table: str) -> Iterator[tuple[Split, str, str, str]]:
    """Yield the rows of one table with stripped columns."""
    for row in table.strip().splitlines():
        split, file, author, licence = (column.strip() for column in row.split("|"))
        yield cast(Split, split), file, author, licence


def _gcompris() -> Iterator[Photo]:
    for short, activity, folder, table in _GCOMPRIS:
        archive = f"usr/share/gcompris-qt/rcc/{activity}.rcc"
        inside = f"/gcompris/src/activities/{activity}/resource/{folder}"
        for split, file, author, licence in _rows(table):
            name = f"{short}-{file.rpartition('/')[2]}.webp"
            member = f"{archive}:{inside}{file}.webp"
            yield Photo(name, "gcompris-qt-data", member, author, licence, split)


def _plain(package: str, folder: str, table: str, suffix: str = ".jpg") -> Iterator[Photo]:
    for split, file, author, licence in _rows(table):
        yield Photo(file + suffix, package, folder + file + suffix, author, licence, split)


PHOTOS: tuple[Photo, ...] = (
    *_gcompris(),
    *_plain("palapeli-data", "usr/share/palapeli/collection/", _PALAPELI),
    *_plain("lomiri-wallpapers-16.04", "usr/share/backgrounds/", _LOMIRI),
    *_plain("scikit-image", "", _SKIMAGE, suffix=""),
)
