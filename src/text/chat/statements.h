// Statements of the template language.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/chat/expressions.h"

namespace dmc::text::chat {

enum class Flow { kNext, kBreak, kContinue };  // what a loop does after a statement

struct Statement {
  explicit Statement(size_t at) : line(at) {}
  virtual ~Statement() = default;
  Flow run(Runtime& runtime, Scope& scope) const {
    const Runtime::Level level(runtime, line);
    return execute(runtime, scope);
  }
  const size_t line;

 protected:
  virtual Flow execute(Runtime&, Scope&) const = 0;
};
using Block = std::vector<std::unique_ptr<const Statement>>;

Flow run_block(const Block& block, Runtime& runtime, Scope& scope);

struct Data : Statement {
  Data(size_t at, std::string text) : Statement(at), text_(std::move(text)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  const Text text_;
};

struct Output : Statement {  // {{ expression }}
  Output(size_t at, ExpressionPtr expression) : Statement(at), expression_(std::move(expression)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  ExpressionPtr expression_;
};

struct If : Statement {
  using Branch = std::pair<ExpressionPtr, Block>;
  If(size_t at, std::vector<Branch> branches, Block otherwise)
      : Statement(at), branches_(std::move(branches)), otherwise_(std::move(otherwise)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  std::vector<Branch> branches_;
  Block otherwise_;
};

struct For : Statement {
  For(size_t at, std::vector<std::string> targets, ExpressionPtr iterable, ExpressionPtr condition,
      Block body, Block otherwise, bool uses_loop)
      : Statement(at),
        targets_(std::move(targets)),
        iterable_(std::move(iterable)),
        condition_(std::move(condition)),
        body_(std::move(body)),
        otherwise_(std::move(otherwise)),
        uses_loop_(uses_loop) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  std::vector<std::string> targets_;
  ExpressionPtr iterable_, condition_;  // `condition_` may be null
  Block body_, otherwise_;
  const bool uses_loop_;  // whether the body names `loop`, which is costly to make
};

struct LoopControl : Statement {  // {% break %}, {% continue %}
  LoopControl(size_t at, Flow flow) : Statement(at), flow_(flow) {}
  Flow execute(Runtime&, Scope&) const override { return flow_; }

 private:
  const Flow flow_;
};

struct Set : Statement {  // {% set a, b = value %}
  Set(size_t at, std::vector<std::string> targets, ExpressionPtr expression)
      : Statement(at), targets_(std::move(targets)), expression_(std::move(expression)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  std::vector<std::string> targets_;
  ExpressionPtr expression_;
};

struct SetAttribute : Statement {  // {% set namespace.attribute = value %}
  SetAttribute(size_t at, std::string object, std::string attribute, ExpressionPtr expression)
      : Statement(at),
        object_(std::move(object)),
        attribute_(std::move(attribute)),
        expression_(std::move(expression)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  const std::string object_, attribute_;
  ExpressionPtr expression_;
};

struct SetBlock : Statement {  // {% set name | filters %}body{% endset %}; without a name: output
  SetBlock(size_t at, std::string target, std::vector<std::unique_ptr<const Filter>> filters,
           Block body)
      : Statement(at),
        target_(std::move(target)),
        filters_(std::move(filters)),
        body_(std::move(body)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  const std::string target_;
  std::vector<std::unique_ptr<const Filter>> filters_;  // their operands are null
  Block body_;
};

struct Macro : Statement {
  struct Parameter {
    std::string name;
    ExpressionPtr otherwise;  // its default; may be null
  };
  Macro(size_t at, std::string name, std::vector<Parameter> parameters, Block body)
      : Statement(at),
        name_(std::move(name)),
        parameters_(std::move(parameters)),
        body_(std::move(body)) {}
  Flow execute(Runtime&, Scope&) const override;
  Value call(Runtime& runtime, const Arguments& arguments) const;

 private:
  const std::string name_;
  std::vector<Parameter> parameters_;
  Block body_;
};

struct Section : Statement {  // {% generation %}: its body, as if the tags were not there
  Section(size_t at, Block body) : Statement(at), body_(std::move(body)) {}
  Flow execute(Runtime&, Scope&) const override;

 private:
  Block body_;
};

}  // namespace dmc::text::chat
