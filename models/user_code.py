"""User-defined models: finds the class of a dotted path and locates errors in its code."""

import contextlib
import dataclasses
import importlib
import inspect
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from models.keras import keras, tf
from preprocessing.errors import UserError, one_line
from preprocessing.json_checks import did_you_mean

_KERAS_CALL = re.compile(
    r"Exception encountered when calling .*?\n\n(.*?)\n\nCall arguments received.*", re.DOTALL
)
_NODE = re.compile(r"\{\{.*?\}\}\s*")
_MISFITS = (TypeError, AttributeError, ValueError, LookupError)
_IN_GRAPHS = (
    "write tf.where, tf.cond or tf.while_loop, or a function with a tf.function of its own."
)


class Part(NamedTuple):
    """A user-defined model or self-supervision.

    Attributes:
        flag: Kind of the part, `model` or `ssl`.
        name: Name on the command line, a dotted path.
        kind: Class of the part.
    """

    flag: str
    name: str
    kind: type

    @property
    def package(self) -> str:
        """The top-level package of the class's module."""
        return self.kind.__module__.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.flag} {self.name}"

    def where(self, method: str = "") -> str:
        """File and line of the class, or of one of its methods."""
        thing = inspect.unwrap(getattr(self.kind, method)) if method else self.kind
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"


def load_class(name: str, base: type, flag: str) -> type:
    """Loads the class of a dotted path.

    Args:
        name: Path `package.module` or `package.module:Class`.
        base: Required base class.
        flag: Flag in which the user named the class.

    Raises:
        UserError: The name is a file instead of a module; there is no such module, or it cannot be
            imported; there is no such class, or several; its settings are not valid.
    """
    module_name, _, class_name = name.partition(":")
    if "/" in module_name or module_name.endswith(".py"):
        raise _file_refused(module_name, class_name, flag)
    module = _import(module_name, name, flag)
    kind = _named(module, class_name, base, flag) if class_name else _only(module, base, flag)
    _check_settings(kind, base, f"{flag} {name}")
    return kind


def _file_refused(file: str, class_name: str, flag: str) -> UserError:
    """The error for a file: a run must be able to find its model again, from any directory."""
    path = pathlib.Path(file).resolve()
    if path.suffix != ".py":
        path = path.with_suffix(".py")
    if not path.is_file():
        return UserError(
            f"Expected --{flag} to name a module, as in my_package.my_module, found {file!r}, "
            "which is not even a file."
        )
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    working_directory = pathlib.Path.cwd()
    if root == path.parent and path.is_relative_to(working_directory):
        root = working_directory
    dotted = ".".join(path.relative_to(root).with_suffix("").parts)
    on_path = root in [pathlib.Path(entry).resolve() for entry in sys.path]
    return UserError(
        f"Expected --{flag} to name a module, found the file {file}.",
        f"write --{flag}={dotted}{f':{class_name}' if class_name else ''}"
        f"{'' if on_path else f' with PYTHONPATH={root}'}.",
    )


def _import(module_name: str, name: str, flag: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"Expected --{flag}={name} to name a module, but {error}.", "check PYTHONPATH."
            ) from None
        cause: BaseException = error
    except (Exception, SystemExit) as error:
        cause = error
    place = _place(cause, module_name.partition(".")[0])
    raise UserError(
        f"Expected --{flag}={name} to be a module that can be imported, found at {place or name}: "
        f"{one_line(cause)}"
    ) from cause


def _place(error: BaseException, package: str) -> str:
    """File and line in a package where an error was raised; "" if it was raised elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] == package
    ]
    return frames[-1] if frames else ""


def _classes(module: ModuleType, base: type) -> dict[str, type]:
    """The subclasses of `base` that a module itself defines, by name."""
    return {
        name: member
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base) and member.__module__ == module.__name__
    }


def _only(module: ModuleType, base: type, flag: str) -> type:
    candidates = _classes(module, base)
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if candidates:
        raise UserError(
            f"Expected one {base.__name__} in {module.__name__}, found {', '.join(candidates)}.",
            f"name it: --{flag}={module.__name__}:{next(iter(candidates))}.",
        )
    other_classes = ", ".join(_classes(module, object))
    raise UserError(
        f"Expected one {base.__name__} in {module.__name__} ({module.__file__}), found "
        f"{f'none among {other_classes}' if other_classes else 'no class'}.",
        f"derive the class of the {flag} from {base.__module__}.{base.__name__}.",
    )


def _named(module: ModuleType, class_name: str, base: type, flag: str) -> type:
    kind = getattr(module, class_name, None)
    if kind is None:
        candidates = _classes(module, base)
        raise UserError(
            f"Expected a class {class_name} in {module.__name__} ({module.__file__}), found "
            f"{', '.join(candidates) or 'none'}.",
            did_you_mean(class_name, candidates),
        )
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        parents = ", ".join(map(_full_name, getattr(kind, "__bases__", (type(kind),))))
        raise UserError(
            f"Expected {module.__name__}:{class_name} to derive from "
            f"{base.__module__}.{base.__name__}, found {parents}.",
            f"derive it from {base.__name__}; docs/extending.md has an example.",
        )
    return kind


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _check_settings(kind: Any, base: type, described: str) -> None:
    """Raises `UserError` unless the class `Config` is a dataclass derived from the base's."""
    settings = getattr(kind, "Config", None)
    needed = getattr(base, "Config", object)
    fix = "declare it as docs/extending.md does: @dataclasses.dataclass(frozen=True, kw_only=True)"
    if not (inspect.isclass(settings) and issubclass(settings, needed)):
        raise UserError(
            f"Expected {described} to have a class of settings Config"
            f"{f' that derives from {_full_name(needed)}' if needed is not object else ''}, found "
            f"{settings!r}.",
            f"{fix}.",
        )
    if "__dataclass_fields__" not in vars(settings):
        raise UserError(
            f"Expected the settings {settings.__name__} of {described} to be a dataclass, found a "
            "plain class.",
            f"{fix}.",
        )


@contextlib.contextmanager
def explained(parts: Sequence[Part]) -> Iterator[None]:
    """Turns errors of user-defined parts into a `UserError` with file and line.

    Args:
        parts: User-defined parts; without any, errors stay as they are.
    """
    try:
        yield
    except Exception as error:
        if not parts:
            raise
        text = _plain(str(error))
        if isinstance(error, UserError):
            raise UserError(text) from error
        cause = one_line(f"{type(error).__name__}: {text}")
        fix = _IN_GRAPHS if isinstance(error, tf.errors.OperatorNotAllowedInGraphError) else ""
        for part in parts:
            place = _place(error, part.package)
            if place:
                raise UserError(
                    f"Expected {part} to compute its results, found at {place}: {cause}", fix
                ) from error
        if not isinstance(error, _MISFITS):
            raise
        named = " and ".join(f"{part} ({part.where()})" for part in parts)
        raise UserError(
            f"Expected {named} to fit models.backbone_api, found: {cause}",
            "see docs/extending.md.",
        ) from error


def _plain(text: str) -> str:
    """The text of an error, without the additions of Keras and TensorFlow."""
    return _NODE.sub("", _KERAS_CALL.sub(r"\1", text))


def require_keras_2(part: Part, instance: Any) -> None:
    """Raises `UserError` for layers of Keras 3, whose weights Keras 2 does not track.

    Args:
        part: User-defined part.
        instance: Instance of the part's class.
    """
    foreign = _keras_3(instance, "self", set())
    if foreign:
        raise UserError(
            f"Expected layers of Keras 2 in {part} ({part.where()}), found {foreign} of Keras 3, "
            "whose weights would never be trained.",
            "write `from models.keras import keras` instead of `import keras`.",
        )


def _keras_3(thing: Any, path: str, seen: set[int]) -> str:
    """Path and class of an object of Keras 3 in a layer, its attributes and containers, or ""."""
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, ModuleType)):
        return ""
    seen.add(id(thing))
    if any(ancestor.__module__.startswith("keras.src.") for ancestor in type(thing).__mro__):
        return f"{path}, a {_full_name(type(thing))},"
    if isinstance(thing, dict):
        inside = [(f"{path}[{key!r}]", value) for key, value in thing.items()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        inside = [(f"{path}[{index}]", value) for index, value in enumerate(thing)]
    elif isinstance(thing, keras.layers.Layer) or _is_plain(thing):
        names = sorted(
            vars(thing), key=lambda name: name.startswith("_")
        )  # Attributes of Keras come last.
        inside = [(f"{path}.{name}", vars(thing)[name]) for name in names]
    else:
        return ""
    return next((description for p, v in inside if (description := _keras_3(v, p, seen))), "")


def _is_plain(thing: Any) -> bool:
    """Whether a value seems to be a plain object of a user's class."""
    top = type(thing).__module__.partition(".")[0]
    library_packages = (
        *sys.stdlib_module_names,
        "tensorflow",
        "tf_keras",
        "numpy",
        "keras",
        "builtins",
    )
    return (
        hasattr(thing, "__dict__")
        and top not in library_packages
        and not dataclasses.is_dataclass(thing)
    )
