"""Where the links of a robot are, from its URDF and its joint readings; MuJoCo computes the kinematics, without meshes or masses."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.simulation.mujoco_renderer import import_mujoco
from model_core.spec.errors import SpecError

MOVING = {"revolute": "rad", "continuous": "rad", "prismatic": "m"}
_COMPILER = {"boundmass": "1", "boundinertia": "1", "fusestatic": "false", "discardvisual": "true", "strippath": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """A joint of the file. copies: (joint, factor, offset) where it follows another one."""

    name: str
    kind: str
    parent: str
    child: str
    copies: tuple[str, float, float] | None = None

    @property
    def unit(self) -> str:
        """Of its reading: "rad" or "m"; "" for a fixed one."""
        return MOVING.get(self.kind, "")


class UrdfKinematics:
    """Forward kinematics of one URDF. Raises `SpecError` naming the file for what cannot be read."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._root = _parsed(path)
        self.joints = {joint.name: joint for joint in map(_joint, self._root.findall("joint"))}
        self._by_child = {joint.child: joint for joint in self.joints.values()}
        self.links = tuple(link.attrib["name"] for link in self._root.findall("link"))
        self._mujoco, self._model = _compiled(self._root, self.name)

    def chain(self, link: str) -> tuple[Joint, ...]:
        """The joints from the base to a link. Raises `SpecError` for an unknown link, or a joint that one reading cannot place."""
        if link not in self.links:
            raise SpecError(f"{self.name} has no link {link!r}; it has {', '.join(self.links)}. Fix: name one of them")
        found: list[Joint] = []
        at = link
        while at in self._by_child and len(found) <= len(self.joints):
            found.append(self._by_child[at])
            at = found[-1].parent
        odd = next((joint for joint in found if joint.kind not in (*MOVING, "fixed")), None)
        if odd is not None:
            raise SpecError(f"{self.name}: joint {odd.name!r} is of type {odd.kind}; expected {', '.join(MOVING)} or fixed")
        return tuple(reversed(found))

    def needed(self, link: str) -> tuple[Joint, ...]:
        """The joints whose readings decide where a link is; one that follows another is replaced by that one."""
        names = [(joint.copies[0] if joint.copies else joint.name) for joint in self.chain(link) if joint.unit]
        return tuple(self.joints[name] for name in dict.fromkeys(names))

    def poses(self, link: str, readings: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
        """Poses (T, 4, 4) of a link in the base, for readings (T,) of the joints that it needs, in radians and metres.

        Raises `SpecError` where a reading is missing.
        """
        if missing := [joint.name for joint in self.needed(link) if joint.name not in readings]:
            raise SpecError(f"{self.name}: link {link!r} needs readings of {', '.join(missing)}; got {', '.join(readings) or 'none'}")
        count = min((len(values) for values in readings.values()), default=1)
        mujoco, data = self._mujoco, self._mujoco.MjData(self._model)
        body = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_BODY, link)
        places = self._places(link, readings)
        poses_T44 = np.tile(np.eye(4), (count, 1, 1))
        for t in range(count):
            for address, values in places:
                data.qpos[address] = values[t]
            mujoco.mj_kinematics(self._model, data)
            if body > 0:  # the base itself is the world
                poses_T44[t, :3, :3] = data.xmat[body].reshape(3, 3)
                poses_T44[t, :3, 3] = data.xpos[body]
        return poses_T44

    def _places(self, link: str, readings: Mapping[str, NDArray[np.floating]]) -> list[tuple[int, NDArray[np.float64]]]:
        found = []
        for joint in self.chain(link):
            if joint.unit:
                number = self._mujoco.mj_name2id(self._model, self._mujoco.mjtObj.mjOBJ_JOINT, joint.name)
                source, factor, offset = joint.copies or (joint.name, 1.0, 0.0)
                values = np.asarray(readings[source], np.float64) * factor + offset
                found.append((int(self._model.jnt_qposadr[number]), values))
        return found


def _parsed(path: Path) -> ElementTree.Element:
    try:
        text = path.read_text(encoding="utf-8")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SpecError(f"{path.name}: a URDF has no document type. Fix: remove it")
        root = ElementTree.fromstring(text)
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise SpecError(f"{path.name} is no URDF that can be read: {error}. Fix: expand it first where it is a xacro file") from error
    if root.tag != "robot":
        raise SpecError(f"{path.name} is no URDF: expected <robot>, got <{root.tag}>. Fix: expand it first where it is a xacro file")
    return root


def _joint(element: ElementTree.Element) -> Joint:
    parent, child, mimic = element.find("parent"), element.find("child"), element.find("mimic")
    copies = None
    if mimic is not None:
        copies = (mimic.attrib["joint"], float(mimic.attrib.get("multiplier", "1")), float(mimic.attrib.get("offset", "0")))
    if parent is None or child is None:
        raise SpecError(f"joint {element.attrib.get('name')!r} of the URDF lacks its parent or child link")
    return Joint(
        name=element.attrib["name"],
        kind=element.attrib["type"],
        parent=parent.attrib["link"],
        child=child.attrib["link"],
        copies=copies,
    )


def _compiled(root: ElementTree.Element, name: str) -> tuple[Any, Any]:
    """The model of links and joints alone: shapes, masses and motors decide no pose, and their files may not be here."""
    bare = ElementTree.Element("robot", {"name": "arm"})
    ElementTree.SubElement(ElementTree.SubElement(bare, "mujoco"), "compiler", _COMPILER)
    for element in root:
        if element.tag == "link":
            ElementTree.SubElement(bare, "link", {"name": element.attrib["name"]})
        elif element.tag == "joint":
            joint = ElementTree.SubElement(bare, "joint", {key: element.attrib[key] for key in ("name", "type")})
            joint.extend([part for part in element if part.tag in ("origin", "parent", "child", "axis")])
            if element.attrib["type"] in ("revolute", "prismatic"):  # a reading beyond a limit is still a reading
                ElementTree.SubElement(joint, "limit", {"lower": "-1000", "upper": "1000", "effort": "1", "velocity": "1"})
    mujoco = import_mujoco()
    try:
        return mujoco, mujoco.MjModel.from_xml_string(ElementTree.tostring(bare, encoding="unicode"))
    except ValueError as error:
        raise SpecError(f"{name} cannot be understood: {error}") from error
