# cmake -DINPUT=index.html -DOUTPUT=page_data.cpp -P embed.cmake: the bytes of a file as a C++ array.
file(READ ${INPUT} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR size "${digits} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUTPUT}
     "namespace lathe::server {\nextern const unsigned char kPageBytes[];\nextern const unsigned long kPageSize;\n"
     "const unsigned char kPageBytes[] = {\n${bytes}\n};\nconst unsigned long kPageSize = ${size};\n}\n")
