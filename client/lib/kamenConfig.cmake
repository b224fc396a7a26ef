# find_package(kamen) gives the target kamen::kamen.
include("${CMAKE_CURRENT_LIST_DIR}/kamenTargets.cmake")
