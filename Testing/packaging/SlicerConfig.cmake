# Stands in for a build tree of Slicer, so that the extension can be configured, installed and packed without one.
#
# What it defines follows Slicer 5.12: CMake/SlicerConfig.cmake.in, SlicerMacroBuildScriptedModule.cmake and
# SlicerMacroPythonTesting.cmake. With -DSLICER_SOURCE=<clone of Slicer/Slicer> -DCTK_SOURCE=<clone of commontk/CTK>,
# their own macros are used (UseSlicer.cmake, packaging and description of the extension included), and only what
# takes a build of Slicer stands in: see the end.

set(Slicer_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-5.12/qt-scripted-modules)
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
set(Slicer_LAUNCHER_EXECUTABLE /opt/Slicer/Slicer)

if(NOT SLICER_SOURCE)
  include(CTest)

  macro(slicerMacroBuildScriptedModule)
    cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
    if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME)
      message(FATAL_ERROR "slicerMacroBuildScriptedModule: NAME is missing, or unknown: ${MY_UNPARSED_ARGUMENTS}")
    endif()
    set(_below "")
    if(MY_WITH_SUBDIR)
      get_filename_component(_below ${CMAKE_CURRENT_SOURCE_DIR} NAME)
    endif()
    foreach(_file ${MY_SCRIPTS} ${MY_RESOURCES})
      if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${_file})
        message(FATAL_ERROR "slicerMacroBuildScriptedModule: there is no file '${_file}'")
      endif()
      get_filename_component(_folder ${_file} DIRECTORY)
      install(FILES ${_file} DESTINATION ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}/${_below}/${_folder}
        COMPONENT RuntimeLibraries)
    endforeach()
    if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
      add_test(NAME py_nomainwindow_qSlicer${MY_NAME}ModuleGenericTest COMMAND ${Slicer_LAUNCHER_EXECUTABLE})
    endif()
  endmacro()

  macro(slicer_add_python_unittest)
    cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
    if(NOT EXISTS ${MY_SCRIPT})
      message(FATAL_ERROR "slicer_add_python_unittest: there is no script '${MY_SCRIPT}'")
    endif()
    get_filename_component(_name ${MY_SCRIPT} NAME_WE)
    add_test(NAME py_${MY_TESTNAME_PREFIX}${_name} COMMAND ${Slicer_LAUNCHER_EXECUTABLE})
  endmacro()

  set(CPACK_GENERATOR TGZ)
  set(CPACK_MONOLITHIC_INSTALL ON)
  set(Slicer_USE_FILE CMakeParseArguments) # nothing more to load
  set(Slicer_EXTENSION_GENERATE_CONFIG CMakeParseArguments)
  set(Slicer_EXTENSION_CPACK CPack)
  return()
endif()

# Slicer's own macros -------------------------------------------------------------------------------------------------
set(Slicer_CMAKE_DIR ${SLICER_SOURCE}/CMake)
set(Slicer_EXTENSIONS_CMAKE_DIR ${SLICER_SOURCE}/Extensions/CMake)
set(CTK_CMAKE_DIR ${CTK_SOURCE}/CMake)
set(_stand_ins ${CMAKE_BINARY_DIR}/stand-ins)
set(CMAKE_MODULE_PATH ${_stand_ins} ${Slicer_CMAKE_DIR} ${Slicer_EXTENSIONS_CMAKE_DIR} ${CTK_CMAKE_DIR})
include(ctkFunctionExtractOptimizedLibrary)

set(Slicer_USE_PYTHONQT ON)
set(Slicer_USE_CTKAPPLAUNCHER OFF)
set(Slicer_REVISION 34000)
set(Slicer_OS linux)
set(Slicer_ARCHITECTURE amd64)
set(Slicer_WC_ROOT https://github.com/Slicer/Slicer)
set(Slicer_SHARE_DIR share/Slicer-5.12)
set(Slicer_INSTALL_ROOT ./)
set(Slicer_QTLOADABLEMODULES_LIB_DIR lib/Slicer-5.12/qt-loadable-modules)
set(Slicer_CLIMODULES_LIB_DIR lib/Slicer-5.12/cli-modules)
set(Slicer_PYTHON_MODULE_TEST_TEMPLATES_DIR ${SLICER_SOURCE}/Base/QTCore/Testing/Python)
set(Slicer_LICENSE_FILE ${SLICER_SOURCE}/License.txt)
set(Slicer_README_FILE ${SLICER_SOURCE}/README.md)
set(Slicer_MAIN_PROJECT_APPLICATION_NAME Slicer)
set(Slicer_ExternalData_DATA_MANAGEMENT_TARGET SlicerData)
set(Slicer_USE_FILE ${Slicer_CMAKE_DIR}/UseSlicer.cmake.in) # nothing in it is filled in
set(Slicer_EXTENSION_GENERATE_CONFIG ${Slicer_CMAKE_DIR}/SlicerExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${Slicer_CMAKE_DIR}/SlicerExtensionCPack.cmake)
foreach(_step EXTERNAL_PROJECTS_USEFILE SlicerBlockPlatformCheck SET_CMAKE_C_CXX_FLAGS)
  set(Slicer_SKIP_${_step} TRUE)
endforeach()

# What a build of Slicer would bring: packages that are looked for, and modules of VTK and CTK for C++.
foreach(_module vtkMacroKitPythonWrap ctkFunctionAddExecutableUtf8 ctkMacroWrapPythonQt)
  file(WRITE ${_stand_ins}/${_module}.cmake "")
endforeach()
file(WRITE ${_stand_ins}/FindPythonQt.cmake "")
file(WRITE ${_stand_ins}/FindCTKAppLauncher.cmake "function(ctkAppLauncherConfigureForExecutable)\nendfunction()\n")
file(WRITE ${_stand_ins}/FindPythonInterp.cmake "set(PYTHON_EXECUTABLE ${PYTHON_EXECUTABLE})\n")
file(WRITE ${_stand_ins}/FindPythonLibs.cmake "set(PYTHON_LIBRARIES /usr/lib/libpython3.so)\n")
file(WRITE ${_stand_ins}/SlicerExecutionModelConfig.cmake "set(SlicerExecutionModel_USE_FILE CMakeParseArguments)\n")
set(SlicerExecutionModel_DIR ${_stand_ins})
