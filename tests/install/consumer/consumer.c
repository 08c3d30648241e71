#include <lathe/lathe_c.h>
#include <stdio.h>

int main(void) { return puts(lathe_version()) < 0; }
