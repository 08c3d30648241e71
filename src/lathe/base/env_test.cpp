#include "lathe/base/env.h"

#include <gtest/gtest.h>
#include <stdlib.h>

namespace lathe {
namespace {

// Sets a variable for one test and puts the old value back.
class ScopedEnv {
 public:
  ScopedEnv(const char* name, const char* value) : name_(name), before_(env_string(name)) {
    if (value != nullptr) {
      ::setenv(name, value, 1);
    } else {
      ::unsetenv(name);
    }
  }

  ScopedEnv(const ScopedEnv&) = delete;
  ScopedEnv& operator=(const ScopedEnv&) = delete;

  ~ScopedEnv() {
    if (before_) {
      ::setenv(name_, before_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST(Env, AnEmptyVariableIsLikeNone) {
  {
    const ScopedEnv set("LATHE_TEST_VARIABLE", "x");
    EXPECT_EQ(env_string("LATHE_TEST_VARIABLE"), "x");
  }
  EXPECT_EQ(env_string("LATHE_TEST_VARIABLE"), std::nullopt);
  const ScopedEnv empty("LATHE_TEST_VARIABLE", "");
  EXPECT_EQ(env_string("LATHE_TEST_VARIABLE"), std::nullopt);
}

TEST(Env, TruthValues) {
  for (const char* yes : {"1", "on", "ON", "Yes", "true", "TRUE", "True"}) {
    const ScopedEnv set("LATHE_TEST_VARIABLE", yes);
    EXPECT_TRUE(env_flag("LATHE_TEST_VARIABLE")) << yes;
  }
  for (const char* no : {"0", "", "off", "no", "false", "2", "11", " 1"}) {
    const ScopedEnv set("LATHE_TEST_VARIABLE", no);
    EXPECT_FALSE(env_flag("LATHE_TEST_VARIABLE")) << no;
  }
}

TEST(Env, XdgDirectoriesWinOverHome) {
  const ScopedEnv home("HOME", "/home/someone");
  {
    const ScopedEnv cache("XDG_CACHE_HOME", "/c");
    const ScopedEnv state("XDG_STATE_HOME", "/s");
    EXPECT_EQ(lathe_cache_directory(), "/c/lathe");
    EXPECT_EQ(lathe_state_directory(), "/s/lathe");
  }
  const ScopedEnv cache("XDG_CACHE_HOME", nullptr);
  const ScopedEnv state("XDG_STATE_HOME", "relative");  // the specification says to ignore it
  EXPECT_EQ(lathe_cache_directory(), "/home/someone/.cache/lathe");
  EXPECT_EQ(lathe_state_directory(), "/home/someone/.local/state/lathe");
}

TEST(Env, WithoutHomeThePasswordFileKnows) {
  const ScopedEnv home("HOME", nullptr);
  EXPECT_TRUE(home_directory().is_absolute());
}

TEST(Env, TheProgramKnowsItsFolder) {
  EXPECT_TRUE(std::filesystem::exists(executable_directory() / "lathe_base_test"));
}

}  // namespace
}  // namespace lathe
