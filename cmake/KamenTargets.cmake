# The flags and the libraries of every target, and the two helpers that declare them.

add_library(kamen_warnings INTERFACE)
target_compile_options(kamen_warnings INTERFACE
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
	-Wpointer-arith -Wwrite-strings -Wno-missing-field-initializers -fno-common
	$<$<BOOL:${KAMEN_WERROR}>:-Werror>)
target_compile_definitions(kamen_warnings INTERFACE _GNU_SOURCE)
if(KAMEN_SANITIZE)
	string(REPLACE ";" "," _sanitizers "${KAMEN_SANITIZE}")
	target_compile_options(kamen_warnings INTERFACE
		-fsanitize=${_sanitizers} -fno-omit-frame-pointer -fno-sanitize-recover=all)
	target_link_options(kamen_warnings INTERFACE -fsanitize=${_sanitizers})
endif()
if(KAMEN_FUZZ)
	target_compile_options(kamen_warnings INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)

function(kamen_pkg name module)
	pkg_check_modules(${name} REQUIRED IMPORTED_TARGET GLOBAL ${module})
endfunction()

kamen_pkg(JANSSON jansson)
kamen_pkg(SODIUM libsodium)
kamen_pkg(XXHASH libxxhash)
kamen_pkg(TURBOJPEG libturbojpeg)
kamen_pkg(SPNG spng)
kamen_pkg(LAPACKE lapacke)
kamen_pkg(PROTOBUFC libprotobuf-c)
kamen_pkg(SYSTEMD libsystemd)
kamen_pkg(INIH inih)
kamen_pkg(SQLITE sqlite3)
kamen_pkg(URING liburing)
kamen_pkg(ZMQ libzmq)
kamen_pkg(SECCOMP libseccomp)

# Debian's dnnl package config asks for OpenCL headers that a CPU build never uses.
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
add_library(kamen_dnnl UNKNOWN IMPORTED GLOBAL)
set_target_properties(kamen_dnnl PROPERTIES
	IMPORTED_LOCATION ${DNNL_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})

# kamen_room(NAME SOURCES a.c b.c LINKS target...): one folder, one static library, and the only
# things that it may link. Whatever is missing from LINKS fails to compile or to link.
function(kamen_room name)
	cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
	add_library(${name} STATIC ${ROOM_SOURCES})
	target_link_libraries(${name} PUBLIC ${ROOM_LINKS} PRIVATE kamen_warnings ${ROOM_PRIVATE_LINKS})
endfunction()

# kamen_test(NAME LABEL label SOURCES a.c LINKS target... [TIMEOUT s]): a cmocka program that exits
# 0, 1 or 77 (skipped). $KAMEN_SHARED names the folder of models and images, if there is one.
function(kamen_test name)
	cmake_parse_arguments(T "" "LABEL;TIMEOUT" "SOURCES;LINKS;ARGS" ${ARGN})
	if(NOT T_TIMEOUT)
		set(T_TIMEOUT 180)
	endif()
	add_executable(${name} ${T_SOURCES})
	target_link_libraries(${name} PRIVATE kamen_warnings ${T_LINKS})
	add_test(NAME ${name} COMMAND ${name} ${T_ARGS} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
	set_tests_properties(${name} PROPERTIES LABELS "${T_LABEL}" SKIP_RETURN_CODE 77
		TIMEOUT ${T_TIMEOUT})
	# Threads that spin while they wait make a loaded machine ten times slower.
	set_tests_properties(${name} PROPERTIES ENVIRONMENT "OMP_WAIT_POLICY=passive")
	set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()
