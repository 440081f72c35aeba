# The WebAssembly part of the QuickJS engine fetches SIMDe's headers with Git unless it is told where they are.
foreach(folder /usr/include /opt/homebrew/include /usr/local/include)
    if(EXISTS "${folder}/simde")
        set(FETCHCONTENT_SOURCE_DIR_SIMDE "${folder}" CACHE PATH "" FORCE)
        break()
    endif()
endforeach()
