// The HTTP server over real sockets, with clients that are slow, impatient or gone.
#include "server/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace dmc::server {
namespace {

using std::chrono::milliseconds;

class Client {
 public:
  explicit Client(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval timeout{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const std::string& text) {
    EXPECT_EQ(::send(fd_, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  void get(const std::string& path) { send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"); }
  // What has come once `until` is in it, or all at the end.
  std::string read(const std::string& until) {
    char part[4096];
    while (got_.find(until) == std::string::npos) {
      const ssize_t size = ::recv(fd_, part, sizeof(part), 0);
      if (size <= 0) break;
      got_.append(part, static_cast<size_t>(size));
    }
    return std::exchange(got_, {});
  }
  std::string read_all() { return read("\x01never"); }

 private:
  int fd_;
  std::string got_;
};

class HttpServerTest : public testing::Test {
 protected:
  void serve(HttpOptions options, HttpHandler handler) {
    options.port = 0;
    server_ = std::make_unique<HttpServer>(options, std::move(handler));
    port_ = server_->port();
    thread_ = std::thread([this] { server_->run([this] { draining_ = true; }); });
  }
  void serve(HttpHandler handler) { serve({}, std::move(handler)); }
  void end() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
  }
  void TearDown() override {
    end();
    for (std::thread& writer : writers_) writer.join();
  }
  static void wait_for(const std::atomic<bool>& flag) {
    for (int i = 0; i < 1000 && !flag; ++i) std::this_thread::sleep_for(milliseconds(10));
    EXPECT_TRUE(flag);
  }

  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
  std::thread thread_;
  std::vector<std::thread> writers_;
  std::atomic<bool> draining_ = false, gone_ = false;
};

void echo(const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
  exchange->respond({200,
                     request.method + " " + request.path + "?" + request.query + " " + request.body,
                     "text/plain"});
}

TEST_F(HttpServerTest, AConnectionServesManyRequests) {
  serve(echo);
  Client client(port_);
  for (int i = 0; i < 3; ++i) {
    client.send("POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    const std::string answer = client.read("abc");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
    EXPECT_TRUE(answer.ends_with("POST /a?b=c abc")) << answer;
  }
}

TEST_F(HttpServerTest, EventsComeAsTheyAreWritten) {
  std::shared_ptr<Exchange> held;
  std::atomic<bool> asked = false;
  serve([&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    held = exchange;
    exchange->begin_events({});
    asked = true;
  });
  Client client(port_);
  client.get("/");
  wait_for(asked);
  EXPECT_NE(client.read("\r\n\r\n").find("Transfer-Encoding: chunked"), std::string::npos);
  for (const char* event : {"data: 1\n\n", "data: 2\n\n"}) {
    EXPECT_TRUE(held->write(event));
    EXPECT_NE(client.read(event).find(event), std::string::npos);
  }
  held->finish();
  EXPECT_TRUE(client.read("0\r\n\r\n").ends_with("0\r\n\r\n"));
  EXPECT_FALSE(held->write("too late"));
  client.get("/");  // the connection goes on
  EXPECT_NE(client.read("\r\n\r\n").find("200 OK"), std::string::npos);
  held->finish();
}

TEST_F(HttpServerTest, OldClientsGetAPlainStreamThatEndsWithTheConnection) {
  serve([](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->begin_events({});
    exchange->write("data: 1\n\n");
    exchange->finish();
  });
  Client client(port_);
  client.send("GET / HTTP/1.0\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_EQ(answer.find("chunked"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\ndata: 1\n\n")) << answer;
}

TEST_F(HttpServerTest, WhoLeavesIsNoticedBeforeTheAnswerBegins) {
  std::atomic<bool> asked = false;
  serve([&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->when_gone([this] { gone_ = true; });
    asked = true;
  });
  {
    Client client(port_);
    client.get("/");
    wait_for(asked);
    EXPECT_FALSE(gone_);
  }
  wait_for(gone_);
}

// Its bytes are the next request, not a sign that it left.
TEST_F(HttpServerTest, WhoAsksAgainIsStillThere) {
  std::shared_ptr<Exchange> held;
  std::atomic<bool> asked = false;
  serve([&](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.path == "/second") return echo(request, exchange);
    exchange->when_gone([this] { gone_ = true; });
    held = exchange;
    asked = true;
  });
  Client client(port_);
  client.get("/first");
  wait_for(asked);
  client.get("/second");
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_FALSE(gone_);
  held->respond({200, "one", "text/plain"});
  const std::string both = client.read("/second?");
  EXPECT_LT(both.find("one"), both.find("/second?"));
  EXPECT_FALSE(gone_);
}

// The writer is never held up, and hears that nobody reads.
TEST_F(HttpServerTest, WhoDoesNotReadIsGivenUp) {
  std::atomic<bool> refused = false;
  HttpOptions options;
  options.pending_bytes = 64 << 10;
  options.write_time = milliseconds(300);
  serve(options, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->when_gone([this] { gone_ = true; });
    writers_.emplace_back([&refused, exchange] {
      exchange->begin_events({});
      const std::string event(16 << 10, 'x');
      for (int i = 0; i < 100000 && exchange->write(event); ++i) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      refused = true;
    });
  });
  Client client(port_);
  client.get("/");
  wait_for(refused);
  wait_for(gone_);
}

TEST_F(HttpServerTest, SlowRequestsEndAtTheirDeadlines) {
  HttpOptions options;
  options.header_time = options.body_time = milliseconds(200);
  options.idle_time = milliseconds(300);
  serve(options, echo);
  Client header(port_), body(port_), idle(port_);
  header.send("GET / HT");
  body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
  EXPECT_TRUE(header.read_all().starts_with("HTTP/1.1 408"));
  EXPECT_TRUE(body.read_all().starts_with("HTTP/1.1 408"));
  EXPECT_EQ(idle.read_all(), "");
}

TEST_F(HttpServerTest, TooManyConnectionsAreToldSo) {
  HttpOptions options;
  options.connections = 2;
  serve(options, echo);
  Client first(port_), second(port_);
  for (Client* client : {&first, &second}) {
    client->get("/");
    client->read("/?");
  }
  EXPECT_EQ(server_->connections(), 2u);
  Client third(port_);
  EXPECT_TRUE(third.read_all().starts_with("HTTP/1.1 503"));
}

TEST_F(HttpServerTest, TheEndWaitsForWhatRuns) {
  std::shared_ptr<Exchange> held;
  std::atomic<bool> asked = false;
  serve([&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    held = exchange;
    asked = true;
  });
  Client client(port_);
  client.get("/");
  wait_for(asked);
  server_->stop();
  wait_for(draining_);
  held->respond({200, "the last word", "text/plain"});
  EXPECT_NE(client.read_all().find("the last word"), std::string::npos);
  thread_.join();
}

TEST_F(HttpServerTest, ManyClientsAtOnce) {
  serve([this](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.path == "/echo") return echo(request, exchange);
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    writers_.emplace_back([exchange] {
      exchange->begin_events({});
      for (int i = 0; i < 50 && exchange->write("data: x\n\n"); ++i) std::this_thread::yield();
      exchange->finish();
    });
  });
  std::vector<std::thread> clients;
  std::atomic<int> complete = 0;
  for (int i = 0; i < 12; ++i) {
    clients.emplace_back([&, i] {
      for (int round = 0; round < 10; ++round) {
        Client client(port_);
        client.get((i + round) % 2 ? "/echo" : "/stream");
        if (round % 5 == 4) continue;  // leaves
        const std::string answer = client.read((i + round) % 2 ? "/echo?" : "0\r\n\r\n");
        complete += answer.find("200 OK") != std::string::npos ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(complete, 12 * 8);
}

TEST_F(HttpServerTest, RefusesWhatItCannotListenOn) {
  serve(echo);
  HttpOptions options;
  options.port = port_;
  EXPECT_THROW(HttpServer(options, echo), std::exception);
  options.address = "nowhere";
  EXPECT_THROW(HttpServer(options, echo), std::exception);
}

}  // namespace
}  // namespace dmc::server
