#include "lathe/reference/equations.h"

#include <gtest/gtest.h>
