// Parity with Jinja2 is tested in tests/parity/test_chat_template.py; here are the limits and what
// is read from a model's directory.
#include "text/chat_template.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "text/tokenizer.h"

namespace dmc::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string render(const std::string& source,
                   const ordered_json& messages = ordered_json::array()) {
  return ChatTemplate(source, "t").render(messages, false).text;
}

std::string error_of(const std::string& source, ErrorCode* kind = nullptr) {
  try {
    render(source);
  } catch (const Error& error) {
    if (kind) *kind = error.code();
    return error.what();
  }
  return "";
}

// What would run for ever, fill the memory or exhaust the stack: refused with the line.
TEST(ChatTemplate, RunawayTemplatesAreStopped) {
  const std::string deep(5000, '('), chain = "{{ 1" + [] {
    std::string more;
    for (int i = 0; i < 5000; ++i) more += "+1";
    return more;
  }() + " }}";
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if 1 %}";
  const std::pair<std::string, const char*> kRunaway[] = {
      {"{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps"},
      {"{{ range(999999999) }}", "range()"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nest too deep"},
      {"{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
       "{% endfor %}",
       "strings"},
      {"{% set x = 'x' * 4000000 %}{{ x }}{{ x }}", "output"},
      {"{{ 'x' * 99999999999 }}", "too long"},
      {"{{ [0] * 99999999999 }}", "steps"},
      {"{{ ('x' * 3000000)|replace('x', 'y' * 3000000) }}", "too long"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}",
       "cannot hold"},
      {"{% set ns = namespace(x=[]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}"
       "{% endfor %}",
       "too large"},
      {"{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(20) %}"
       "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
       "{% for i in range(99999) %}{% if ns.a == ns.b %}{% endif %}{% endfor %}",
       "steps"},
      {"{% set ns = namespace() %}{% set ns.x = ns %}", "cannot hold"},
      {"{% set ns = namespace() %}{% set ns.x = [ns] %}", "nest deeper"},
      {"{{ " + deep + "1" + std::string(deep.size(), ')') + " }}", "nested deeper"},
      {chain, "parts"},
      {blocks, "nested deeper"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"},
      {"{{ 99999999999999999999 }}", "out of range"},
  };
  for (const auto& [source, words] : kRunaway) {
    const std::string message = error_of(source);
    EXPECT_NE(message.find("t: line 1: "), std::string::npos) << source.substr(0, 80);
    EXPECT_NE(message.find(words), std::string::npos) << source.substr(0, 80) << ": " << message;
  }
  EXPECT_THROW(ChatTemplate(std::string(2 << 20, 'x'), "t"), Error);
}

// What a template says of itself reaches a terminal as one short line.
TEST(ChatTemplate, ComplaintsAreShortAndWithoutControls) {
  for (const char* source :
       {"{{ raise_exception('\x1b[2J\n' * 3000) }}", "{{ x | \x1b[31m }}",
        "{% if a == '\x1b]0;t\x07' %}", "{{ '\xe2\x80\xae' | nothing_known }}"}) {
    const std::string message = error_of(source);
    EXPECT_LT(message.size(), 1500u);
    for (const char c : message) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << message;
  }
}

TEST(ChatTemplate, WhoIsToBlameIsTheKindOfError) {
  ErrorCode kind{};
  EXPECT_EQ(error_of("a\n{{ raise_exception('roles must alternate') }}", &kind),
            "t: line 2: roles must alternate");
  EXPECT_EQ(kind, ErrorCode::kInvalidArgument);
  EXPECT_EQ(error_of("{{ nothing.x }}", &kind), "t: line 1: 'nothing' is undefined");
  EXPECT_EQ(kind, ErrorCode::kData);
}

// The most memory that rendering takes beyond what this process has, in MB; a child process's, for
// a peak is its process's.
double megabytes_to_render(const std::string& source, const ordered_json& messages) {
  int channel[2];
  EXPECT_EQ(::pipe(channel), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto resident = [](const char* key) {
      std::ifstream in("/proc/self/status");
      std::string word;
      double kilobytes = 0;
      while (in >> word && word != key) {
      }
      in >> kilobytes;
      return kilobytes / 1024;
    };
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
    const double before = resident("VmRSS:");
    try {
      render(source, messages);
    } catch (const Error&) {
    } catch (...) {
      ::_exit(1);
    }
    const double taken = resident("VmHWM:") - before;
    ::_exit(::write(channel[1], &taken, sizeof taken) == sizeof taken ? 0 : 1);
  }
  double taken = 1e9;
  ::close(channel[1]);
  EXPECT_EQ(::read(channel[0], &taken, sizeof taken), ssize_t{sizeof taken});
  ::close(channel[0]);
  ::waitpid(child, nullptr, 0);
  return taken;
}

// Small sources and messages of at most 4 MB, of each kind of growth that there is.
TEST(ChatTemplate, MemoryIsBounded) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "what is freed stays resident with this sanitizer";
#endif
  const std::string twice =
      "{% set ns = namespace(x=[1]) %}{% for i in range(19) %}{% set ns.x = [ns.x, ns.x] %}"
      "{% endfor %}";
  const std::string full = "{% set x = 'x' * 4000000 %}";
  const std::string holding = "{% set ns = namespace(l=[]) %}";
  const std::string kHostile[] = {
      "{{ messages[0].content.split(',')|length }}",
      "{{ messages[0].content.split()|length }}",
      "{{ messages[0].content.splitlines()|length }}",
      "{{ messages[0].content.replace(',', ';')|length }}",
      "{{ messages[0].content|replace('', '')|length }}",
      "{{ messages[0].content|indent(2)|length }}",
      "{{ messages[0].content[::-1][::2]|length }}",
      "{{ messages[0].content|list|length }}",
      "{{ messages|map(attribute=messages[0].content)|list|length }}",
      twice + "{{ ns.x|string|length }}",
      twice + "{{ ns.x ~ ns.x }}",
      twice + "{{ ns.x|tojson|length }}",
      twice + "{{ ns.x|tojson(indent=16)|length }}",
      "{{ ([0] * 100000)|tojson(separators=('x' * 1000000, ':'))|length }}",
      full + "{% macro f() %}{{ x[:2000000] }}{{ f() }}{% endmacro %}{{ f() }}",
      full + "{% macro f() %}{{ x }}{{ f() }}{% endmacro %}{{ f() }}",
      full + holding + "{% for i in range(999) %}{% set ns.l = ns.l + [x ~ i] %}{% endfor %}",
      holding +
          "{% for i in range(9) %}{% set ns.l = ns.l + [range(100000)|map('string')|list] %}{% "
          "endfor %}",
      holding +
          "{% for i in range(99999) %}{% set ns.l = [{'a': i, 'b': {'c': ns.l|length}}, i] %}{% "
          "endfor %}",
      "{% set ns = namespace(l=[0]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}",
      "{{ (range(100000)|list * 9)|sort|length }}",
      full + "{{ ([x] * 3)|sort|length }}",
      full + "{{ (x|upper|title|lower|capitalize)|length }}",
      "{{ [" +
          [] {
            std::string items;
            for (int i = 0; i < 500'000; ++i) items += "1,";
            return items;
          }() +
          "]|length }}",
  };
  std::string parts;
  while (parts.size() < (size_t{4} << 20)) parts += "a,\n ";
  const ordered_json messages = {{{"role", "user"}, {"content", parts}}};
  for (const std::string& source : kHostile) {
    EXPECT_LT(megabytes_to_render(source, messages), 256) << source.substr(0, 120);
  }
}

TEST(ChatTemplate, HugeMessagesAreNoTrap) {
  const ordered_json messages = {{{"role", "user"}, {"content", std::string(3 << 20, 'x')}}};
  EXPECT_EQ(render("{% for m in messages %}{{ m.content | trim }}{% endfor %}", messages).size(),
            size_t{3} << 20);
}

class ChatTemplateFile : public testing::Test {
 protected:
  void write(const char* name, const std::string& text) const {
    std::ofstream(dir_ / name) << text;
  }
  std::string found() const {
    const auto chat = ChatTemplate::find(dir_);
    return chat ? chat->render(ordered_json::array(), true).text : "none";
  }
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

TEST_F(ChatTemplateFile, IsLookedForInTurn) {
  EXPECT_EQ(found(), "none");
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_EQ(found(), "none");
  write("tokenizer_config.json",
        R"({"bos_token": {"content": "<s>"}, "eos_token": null,
            "chat_template": [{"name": "tools", "template": "no"},
                              {"name": "default", "template": "{{ bos_token }}a"}]})");
  EXPECT_EQ(found(), "<s>a");
  write("tokenizer_config.json", R"({"eos_token": "</s>", "chat_template": "b{{ eos_token }}"})");
  EXPECT_EQ(found(), "b</s>");
  write("chat_template.jinja", "{{ add_generation_prompt }}{{ eos_token }}");
  EXPECT_EQ(found(), "True</s>");
}

TEST_F(ChatTemplateFile, ErrorsNameTheFile) {
  write("chat_template.jinja", "{% if %}");
  try {
    found();
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("chat_template.jinja: line 1: "), std::string::npos);
  }
  fs::remove(dir_ / "chat_template.jinja");
  write("tokenizer_config.json", "[]");
  EXPECT_THROW(found(), Error);
}

// The way from messages to ids: the template's control tokens count, the user's do not.
TEST(ChatTemplate, UsersCannotForgeControlTokens) {
  const Tokenizer tokenizer("models/builtin");
  const std::string token = "<|endoftext|>";
  const ChatTemplate chat("{% for m in messages %}{{ m.content }}" + token + "{% endfor %}", "t");
  const ChatPrompt prompt = chat.render({{{"role", "user"}, {"content", "a" + token}}}, false);
  const auto ids = tokenizer.encode_marked(prompt.text, prompt.untrusted);
  EXPECT_EQ(prompt.text, "a" + token + token);
  EXPECT_EQ(std::ranges::count(ids, *tokenizer.token_id(token)), 1);
  EXPECT_EQ(ids.back(), *tokenizer.token_id(token));
}

}  // namespace
}  // namespace dmc::text
