"""Which library is used: that of this source, machine, compiler and TensorFlow, and no other."""

import os
import pathlib
import stat

import pytest

from models import doctor
from models.keras import tf
from models.ops.native import build, library
from preprocessing.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sequence-ctr" / "native"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Makes a program that stands in for the compiler."""

    def make(script, version="g++ 12"):
        program = tmp_path / "bin" / library.COMPILER
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n{script}\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(library.shutil, "which", lambda name: None)


def _write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_lies_in_the_cache_of_the_user(cache, monkeypatch):
    assert library.directory() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert library.directory() == pathlib.Path.home() / ".cache" / "sequence-ctr" / "native"


def test_only_that_of_this_compiler_is_found(cache, compiler):
    assert library.find() is None
    compiler("")
    made = _write(library.path(library.compiler()))
    assert library.find() == made
    compiler("", version="g++ 13")
    assert library.find() is None


def test_without_a_compiler_that_of_any_is_found(cache, no_compiler):
    assert library.find() is None
    made = _write(library.path("g++ 12"))
    assert library.find() == made


@pytest.mark.parametrize("changed", ["source", "header", "processor", "options", "tensorflow"])
def test_that_of_another_state_is_not_found(cache, changed, no_compiler, monkeypatch, tmp_path):
    _write(library.path("g++ 12"))
    assert library.find() is not None
    if changed in ("source", "header"):
        copies = tmp_path / "source"
        copies.mkdir()
        for file in library.SOURCE.parent.glob("*.[ch]*"):
            (copies / file.name).write_bytes(file.read_bytes())
        name = library.SOURCE.name if changed == "source" else "dice.h"
        with (copies / name).open("a") as file:
            file.write("\n")
        monkeypatch.setattr(library, "SOURCE", copies / library.SOURCE.name)
    elif changed == "processor":
        monkeypatch.setattr(library, "processor", lambda: "x86_64 sse2")
    elif changed == "options":
        monkeypatch.setattr(library, "_OPTIONS", ("-O2",))
    else:
        monkeypatch.setattr(tf.version, "GIT_VERSION", "another")
    assert library.find() is None


def test_wide_vectors_where_the_processor_has_them(monkeypatch):
    for features, expected in (("x86_64 avx2", False), ("x86_64 avx2 avx512f", True)):
        monkeypatch.setattr(library, "processor", lambda features=features: features)
        assert ("-mprefer-vector-width=512" in library.options()) == expected


def test_no_compiler_is_one_line(cache, no_compiler):
    with pytest.raises(UserError, match=r"Expected the compiler g\+\+ on PATH, found none; .*apt"):
        build.build()
    assert not cache.exists()
    assert "it needs g++, which is not there" in doctor.check_native().found


def test_a_compiler_that_fails_is_one_line_and_leaves_nothing(cache, compiler):
    compiler("echo note >&2; echo 'x.cc:1: fatal error: no such header' >&2; exit 1")
    with pytest.raises(UserError, match="found status 1: x.cc:1: fatal error: no such header; "):
        build.build()
    assert list(cache.iterdir()) == []


def test_what_does_not_load_never_gets_its_name(cache, compiler):
    compiler('for last; do :; done; echo "no library" > "$last"')
    with pytest.raises(UserError, match="Expected TensorFlow to load what was compiled, found"):
        build.build()
    assert list(cache.iterdir()) == []


def test_what_is_there_is_not_compiled_again(cache, compiler):
    compiler("exit 1")
    made = _write(library.path(library.compiler()))
    assert build.build() == made


def test_the_doctor_names_a_library_that_does_not_load(cache, no_compiler):
    assert doctor.check_native().well
    made = _write(library.path("g++ 12"))
    finding = doctor.check_native()
    assert not finding.well
    assert finding.fix == f"rm {made}; ctr-doctor --build_native"


@pytest.mark.slow
def test_compiles(cache):
    if not library.compiler():
        pytest.skip("needs g++")
    assert library.find() is None
    made = build.build()
    assert library.find() == made
    assert list(cache.iterdir()) == [made]
