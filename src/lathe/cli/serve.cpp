// lathe serve: the OpenAI-compatible server.
#include <algorithm>
#include <filesystem>

#include "lathe/base/log_fields.h"
#include "lathe/cli/common.h"
#include "lathe/server/access.h"
#include "lathe/server/api.h"
#include "lathe/server/http_server.h"
#include "lathe/server/served_model.h"
#include "lathe/server/service.h"
#include "lathe/server/systemd.h"

namespace lathe::cli {

namespace {

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// What clients call the model: the name it was asked for by, or that of its folder or file.
std::string model_id(const ServeOptions& options) {
  if (options.alias) return *options.alias;
  if (options.engine.model.empty()) return "storyteller";
  std::error_code ignored;
  std::filesystem::path path(options.engine.model);
  if (!std::filesystem::exists(path, ignored)) return options.engine.model;
  path = std::filesystem::absolute(path, ignored).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

Result<server::Access> make_access(const ServeOptions& options) {
  std::vector<std::string> keys;
  if (options.api_key_file) {
    LATHE_TRY(keys, server::Access::read_keys(*options.api_key_file));
  }
  const bool loopback = is_loopback(options.host);
  if (keys.empty() && !loopback && !options.allow_unauthenticated) {
    return Error{Errc::kInvalidArgument,
                 str("--host ",
                     options.host,
                     ": expected --api-key-file, or --allow-unauthenticated to serve whoever reaches this address, "
                     "found neither")};
  }
  return server::Access(keys, options.cors_origins, options.allow_hosts, /*check_host=*/loopback && keys.empty());
}

int serve(const ServeOptions& options, server::HttpServer& http, std::unique_ptr<Engine> engine) {
  Result<std::unique_ptr<const server::ServedModel>> model =
      server::ServedModel::open(*engine, model_id(options), options.chat_template);
  if (!model) return report(model.error());
  if (!(*model)->chat_template) {
    log_warning("model: has no chat template: /v1/chat/completions continues the text of the messages");
  }
  const double load_s = engine->load_seconds();
  server::Service service(std::move(engine));
  server::Api api(**model,
                  service,
                  http.post(),
                  {.max_queue = options.max_queue,
                   .log_requests = !options.engine.quiet,
                   .metrics_prefix = options.metrics_prefix,
                   .version = LATHE_VERSION});
  log_info("serving ", (*model)->id, " on ", http.url(), " (loaded in ", fixed(load_s, 2), " s)");
  server::notify_service_manager("READY=1");
  const int signal = http.run(api);
  service.stop();
  return signal == 0 ? kExitOk : 128 + signal;
}

}  // namespace

int run_serve(const ServeOptions& options) {
  if (options.log_format == "json") set_log_format(LogFormat::kJson);
  Result<server::Access> access = make_access(options);
  if (!access) return report(access.error());
  // Before the model is loaded, so that a port in use is noticed at once.
  Result<std::unique_ptr<server::HttpServer>> http =
      server::HttpServer::listen({.host = options.host,
                                  .port = static_cast<uint16_t>(options.port),
                                  .max_body = static_cast<uint64_t>(options.max_body_mib) << 20,
                                  .max_connections = options.max_connections,
                                  .drain_s = options.drain_s},
                                 *std::move(access));
  if (!http) return report(http.error());
  Result<std::unique_ptr<Engine>> engine = open_engine(options.engine, [&](EngineOptions& o) {
    // Room for one conversation of any length, or many short ones.
    o.cache_tokens = options.cache_tokens > 0 ? options.cache_tokens : std::max(o.ctx_size, kDefaultContext);
    o.max_running = options.parallel;
    o.max_batch_tokens = options.batch_tokens;
    o.prefix_cache = !options.no_prefix_cache;
  });
  if (!engine) return report(engine.error());
  return serve(options, **http, *std::move(engine));
}

}  // namespace lathe::cli
