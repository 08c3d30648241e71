#include "lathe/server/http_request.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace lathe::server {
namespace {

HttpRequest request_of(http::verb method, std::string_view target) {
  HttpRequest request(method, {target.data(), target.size()}, 11);
  request.set(http::field::host, "127.0.0.1:8080");
  return request;
}

HttpRequest post_of(std::string_view target) {
  HttpRequest request = request_of(http::verb::post, target);
  request.set(http::field::content_length, "2");
  return request;
}

// The status of the refusal, 0 where the request is admitted.
int status_of(const HttpRequest& request, const Access& access = Access({}, {}, {}, true)) {
  Admitted admitted;
  const std::optional<ApiError> wrong = check_request(request, access, admitted);
  return wrong ? wrong->status : 0;
}

TEST(HttpRequest, IsAdmittedWithItsRouteAndKey) {
  HttpRequest request = post_of("/v1/completions?x=1");
  request.set(http::field::authorization, "Bearer two");
  Admitted admitted;
  ASSERT_FALSE(check_request(request, Access({"one", "two"}, {}, {}, false), admitted).has_value());
  ASSERT_NE(admitted.route, nullptr);
  EXPECT_EQ(admitted.route, find_route("/v1/completions"));
  EXPECT_EQ(admitted.key, 2U);
}

TEST(HttpRequest, NeedsOneHost) {
  HttpRequest none(http::verb::get, "/health", 11);
  EXPECT_EQ(status_of(none), 400);
  none.version(10);
  EXPECT_EQ(status_of(none), 0);
  HttpRequest two = request_of(http::verb::get, "/health");
  two.insert(http::field::host, "127.0.0.1");
  EXPECT_EQ(status_of(two), 400);
}

TEST(HttpRequest, NamesThisServerAndComesFromItsPages) {
  HttpRequest stranger = request_of(http::verb::get, "/health");
  stranger.set(http::field::host, "example.com");
  EXPECT_EQ(status_of(stranger), 403);
  HttpRequest page = request_of(http::verb::get, "/health");
  page.set(http::field::origin, "https://example.com");
  EXPECT_EQ(status_of(page), 403);
  EXPECT_EQ(status_of(page, Access({}, {"https://example.com"}, {}, true)), 0);
}

TEST(HttpRequest, StrangersLearnNothingOfPaths) {
  const Access access({"key"}, {}, {}, false);
  EXPECT_EQ(status_of(post_of("/v1/completions"), access), 401);
  EXPECT_EQ(status_of(request_of(http::verb::get, "/nothing"), access), 401);
  EXPECT_EQ(status_of(request_of(http::verb::get, "/health"), access), 0);
  HttpRequest known = request_of(http::verb::get, "/nothing");
  known.set("X-Api-Key", "key");
  EXPECT_EQ(status_of(known, access), 404);
}

TEST(HttpRequest, HasTheMethodOfItsRoute) {
  EXPECT_EQ(status_of(post_of("/health")), 405);
  EXPECT_EQ(status_of(request_of(http::verb::get, "/v1/completions")), 405);
  EXPECT_EQ(status_of(request_of(http::verb::head, "/health")), 0);
  EXPECT_EQ(status_of(request_of(http::verb::options, "/v1/completions")), 0);
}

TEST(HttpRequest, IsOfBoundedSize) {
  EXPECT_EQ(status_of(request_of(http::verb::get, "/" + std::string(8 * 1024, 'a'))), 414);
  HttpRequest fields = request_of(http::verb::get, "/health");
  for (int i = 0; i < 100; ++i) fields.set("X-" + std::to_string(i), "1");
  EXPECT_EQ(status_of(fields), 431);
}

TEST(HttpRequest, SaysWhatItsBodyIs) {
  EXPECT_EQ(status_of(request_of(http::verb::post, "/v1/completions")), 411);
  HttpRequest chunked = request_of(http::verb::post, "/v1/completions");
  chunked.set(http::field::transfer_encoding, "chunked");
  EXPECT_EQ(status_of(chunked), 0);
  HttpRequest packed = post_of("/v1/completions");
  packed.set(http::field::content_encoding, "gzip");
  EXPECT_EQ(status_of(packed), 415);
  HttpRequest picture = post_of("/v1/completions");
  picture.set(http::field::content_type, "image/png");
  EXPECT_EQ(status_of(picture), 415);
  HttpRequest expects = post_of("/v1/completions");
  expects.set(http::field::expect, "100-continue");
  EXPECT_EQ(status_of(expects), 0);
  expects.set(http::field::expect, "more");
  EXPECT_EQ(status_of(expects), 417);
}

TEST(HttpRequest, BrokenOnesAreAnsweredWherePossible) {
  EXPECT_EQ(parse_error(http::error::body_limit, 10)->status, 413);
  EXPECT_EQ(parse_error(http::error::header_limit, 10)->status, 431);
  EXPECT_EQ(parse_error(http::error::bad_version, 10)->status, 505);
  EXPECT_EQ(parse_error(http::error::bad_method, 10)->status, 400);
  EXPECT_FALSE(parse_error(http::error::end_of_stream, 10).has_value());
  EXPECT_FALSE(parse_error(net::error::connection_reset, 10).has_value());
}

}  // namespace
}  // namespace lathe::server
