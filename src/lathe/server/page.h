// The chat page that the server shows at /.
#pragma once

#include <string_view>

#include "lathe/server/exchange.h"

namespace lathe::server {

// 304 when the client has it already (`if_none_match`: the request's header).
Reply page_reply(std::string_view if_none_match);

}  // namespace lathe::server
