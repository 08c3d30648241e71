#include "lathe/base/result.h"

namespace lathe {

Error Error::at(std::string_view where) const& {
  return Error{code, str(where, ": ", message)};
}

}  // namespace lathe
