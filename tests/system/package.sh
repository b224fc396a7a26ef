#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What an integrator finds after an install: by pkg-config and by find_package, in C and in C++, also
# where the tree was moved. usage: package.sh BUILD
set -eu
build=$1
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
if grep -q '^KAMEN_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    echo "skipped: a build with sanitizers"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

DESTDIR="$work/dest" cmake --install "$build" >"$work/install.log"
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
mv "$work/dest$prefix" "$work/moved"
pc=$(find "$work/moved" -name kamen.pc)
lib=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH="${pc%/*}" LD_LIBRARY_PATH="$lib"
version=$(pkg-config --modversion kamen)
# Nothing that an integrator gets names the machine that it was built on.
if grep -rlF "$PWD" "$lib/pkgconfig" "$lib/cmake" "$work/moved/include"; then
    echo "^ names the build's folder"
    exit 1
fi

mkdir "$work/use"
cat >"$work/use/use.c" <<'C'
#include <kamen/kamen.h>
#include <stdio.h>

int main(void)
{
	struct kamen_client *client = NULL;

	if (kamen_client_connect(&client, "/nonexistent/data.sock", NULL) >= 0)
		return 1;
	return puts(kamen_version()) < 0;
}
C
cp "$work/use/use.c" "$work/use/use.cc"
cat >"$work/use/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.18)
project(use LANGUAGES C)
find_package(kamen 0.1 REQUIRED)
add_executable(use use.c)
target_link_libraries(use PRIVATE kamen::kamen)
CMAKE

# says PROGRAM: it runs, with the library of that version
says() {
    [ "$("$1")" = "$version" ] || { echo "$1 does not say $version"; exit 1; }
}

# shellcheck disable=SC2046 # options
cc -std=c99 -Wall -Wextra -Werror -o "$work/by_pc" "$work/use/use.c" \
    $(pkg-config --cflags --libs kamen)
says "$work/by_pc"
if command -v c++ >/dev/null; then
    # shellcheck disable=SC2046 # options
    c++ -std=c++17 -Wall -Wextra -Werror -o "$work/by_pc_cxx" "$work/use/use.cc" \
        $(pkg-config --cflags --libs kamen)
    says "$work/by_pc_cxx"
fi
{
    cmake -S "$work/use" -B "$work/use/build" -DCMAKE_PREFIX_PATH="$work/moved"
    cmake --build "$work/use/build"
} >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; exit 1; }
says "$work/use/build/use"
# Another minor version is not what was asked for.
sed -i 's/kamen 0.1/kamen 0.9/' "$work/use/CMakeLists.txt"
if cmake -S "$work/use" -B "$work/use/other" -DCMAKE_PREFIX_PATH="$work/moved" >/dev/null 2>&1; then
    echo "0.9 was asked for, and $version was taken"
    exit 1
fi
