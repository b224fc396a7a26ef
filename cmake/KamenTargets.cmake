# The flags and the libraries of every target, and the two helpers that declare them.

add_library(kamen_warnings INTERFACE)
target_compile_options(kamen_warnings INTERFACE
	-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
	-Wpointer-arith -Wwrite-strings -Wno-missing-field-initializers -fno-common
	# A sanitizer's or a fuzzer's marks keep clang from vectorising; it may then be slow.
	$<$<C_COMPILER_ID:Clang>:-Wno-pass-failed>
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

# kamen_rows(NAME FILE [AVX2 flag...] [AVX512 flag...]): FILE, whose functions end in KERN_ISA, once
# per instruction set as part of the room. Without contraction every one of them rounds as the plain
# one does, so that the same bits come out on any of them; the room picks at run time.
function(kamen_rows name file)
	cmake_parse_arguments(ROWS "" "" "AVX2;AVX512" ${ARGN})
	get_filename_component(stem ${file} NAME_WE)
	set(isas c)
	set(flags_avx2 -mavx2 ${ROWS_AVX2})
	set(flags_avx512 -mavx512f ${ROWS_AVX512} -mprefer-vector-width=512)
	if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
		list(APPEND isas avx2 avx512)
		target_compile_definitions(${name} PRIVATE KAMEN_X86)
	endif()
	foreach(isa ${isas})
		add_library(${name}_${stem}_${isa} OBJECT ${file})
		target_compile_definitions(${name}_${stem}_${isa} PRIVATE KERN_ISA=${isa})
		target_compile_options(${name}_${stem}_${isa} PRIVATE
			-O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp-simd
			${flags_${isa}})
		target_link_libraries(${name}_${stem}_${isa} PRIVATE kamen_warnings kamen_base)
		target_sources(${name} PRIVATE $<TARGET_OBJECTS:${name}_${stem}_${isa}>)
	endforeach()
endfunction()

# kamen_isa_file(NAME FILE flag...): FILE, written by hand for an instruction set of x86, with its flags as
# part of the room, so that no other file may use it by accident; the room picks at run time.
function(kamen_isa_file name file)
	get_filename_component(stem ${file} NAME_WE)
	if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
		add_library(${name}_${stem} OBJECT ${file})
		target_compile_options(${name}_${stem} PRIVATE ${ARGN})
		target_link_libraries(${name}_${stem} PRIVATE kamen_warnings kamen_base)
		target_sources(${name} PRIVATE $<TARGET_OBJECTS:${name}_${stem}>)
		target_compile_definitions(${name} PRIVATE KAMEN_X86)
	endif()
endfunction()

# kamen_test(NAME LABEL label SOURCES a.c LINKS target... [TIMEOUT s]): a cmocka program that exits
# 0, 1 or 77 (skipped) and finds the fixtures. $KAMEN_SHARED names the folder of models and images,
# if there is one.
function(kamen_test name)
	cmake_parse_arguments(T "" "LABEL;TIMEOUT" "SOURCES;LINKS;ARGS" ${ARGN})
	if(NOT T_TIMEOUT)
		set(T_TIMEOUT 180)
	endif()
	add_executable(${name} ${T_SOURCES})
	target_link_libraries(${name} PRIVATE kamen_warnings ${T_LINKS})
	target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
	add_test(NAME ${name} COMMAND ${name} ${T_ARGS} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
	set_tests_properties(${name} PROPERTIES LABELS "${T_LABEL}" SKIP_RETURN_CODE 77
		TIMEOUT ${T_TIMEOUT})
	# Threads that spin while they wait make a loaded machine ten times slower.
	set_tests_properties(${name} PROPERTIES ENVIRONMENT "OMP_WAIT_POLICY=passive")
	set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endfunction()
