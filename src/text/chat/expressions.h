// Expressions of the template language, as a tree that evaluates itself.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/chat/builtins.h"
#include "text/chat/runtime.h"

namespace dmc::text::chat {

struct Expression {
  explicit Expression(size_t at) : line(at) {}
  virtual ~Expression() = default;
  Value eval(Runtime& runtime, const Scope& scope) const {
    const Runtime::Level level(runtime, line);
    return value(runtime, scope);
  }
  const size_t line;  // of the template

 protected:
  virtual Value value(Runtime&, const Scope&) const = 0;
};
using ExpressionPtr = std::unique_ptr<const Expression>;
using Expressions = std::vector<ExpressionPtr>;

struct ArgumentList {
  Expressions positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  Arguments eval(Runtime& runtime, const Scope& scope) const;
};

struct Literal : Expression {
  Literal(size_t at, Value constant) : Expression(at), constant_(std::move(constant)) {}
  Value value(Runtime&, const Scope&) const override { return constant_; }

 private:
  Value constant_;
};

struct Name : Expression {
  Name(size_t at, std::string name) : Expression(at), name_(std::move(name)) {}
  Value value(Runtime&, const Scope& scope) const override;

 private:
  const std::string name_;
};

struct ListDisplay : Expression {
  ListDisplay(size_t at, Expressions items, bool is_tuple)
      : Expression(at), items_(std::move(items)), is_tuple_(is_tuple) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  Expressions items_;
  const bool is_tuple_;
};

struct DictDisplay : Expression {
  using Entries = std::vector<std::pair<ExpressionPtr, ExpressionPtr>>;
  DictDisplay(size_t at, Entries entries) : Expression(at), entries_(std::move(entries)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  Entries entries_;
};

struct Attribute : Expression {  // object.name: a method, else an entry
  Attribute(size_t at, ExpressionPtr object, std::string name)
      : Expression(at), object_(std::move(object)), name_(std::move(name)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr object_;
  const std::string name_;
};

struct Item : Expression {  // object[index]: an entry, else a method
  Item(size_t at, ExpressionPtr object, ExpressionPtr index)
      : Expression(at), object_(std::move(object)), index_(std::move(index)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr object_, index_;
};

struct Slice : Expression {  // object[begin:end:step]; what is left out is null
  Slice(size_t at, ExpressionPtr object, ExpressionPtr begin, ExpressionPtr end, ExpressionPtr step)
      : Expression(at),
        object_(std::move(object)),
        begin_(std::move(begin)),
        end_(std::move(end)),
        step_(std::move(step)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr object_, begin_, end_, step_;
};

struct Call : Expression {
  Call(size_t at, ExpressionPtr callee, ArgumentList arguments)
      : Expression(at), callee_(std::move(callee)), arguments_(std::move(arguments)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr callee_;
  ArgumentList arguments_;
};

struct Filter : Expression {  // operand|name(arguments); `filter` is null for an unknown one
  Filter(size_t at, std::string name, ExpressionPtr operand, ArgumentList arguments);
  Value value(Runtime&, const Scope&) const override;
  Value apply(Runtime& runtime, const Value& operand, const Scope& scope) const;

 private:
  const std::string name_;
  const Builtin* const filter_;
  ExpressionPtr operand_;
  ArgumentList arguments_;
};

struct Test : Expression {  // operand is name(arguments)
  Test(size_t at, std::string name, ExpressionPtr operand, ArgumentList arguments, bool negated);
  Value value(Runtime&, const Scope&) const override;

 private:
  const std::string name_;
  const Builtin* const test_;
  ExpressionPtr operand_;
  ArgumentList arguments_;
  const bool negated_;
};

// Left operator right, where both are always evaluated.
using BinaryOperation = Value (*)(Runtime&, const Value& left, const Value& right);
BinaryOperation find_operation(std::string_view name);  // null: no such operator

struct Binary : Expression {
  Binary(size_t at, BinaryOperation operation, ExpressionPtr left, ExpressionPtr right)
      : Expression(at), operation_(operation), left_(std::move(left)), right_(std::move(right)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  const BinaryOperation operation_;
  ExpressionPtr left_, right_;
};

struct Comparison : Expression {  // a < b <= c: each link must hold
  using Links = std::vector<std::pair<BinaryOperation, ExpressionPtr>>;
  Comparison(size_t at, ExpressionPtr first, Links links)
      : Expression(at), first_(std::move(first)), links_(std::move(links)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr first_;
  Links links_;
};

struct Logical : Expression {  // and, or: the operand that decides
  Logical(size_t at, bool is_and, ExpressionPtr left, ExpressionPtr right)
      : Expression(at), is_and_(is_and), left_(std::move(left)), right_(std::move(right)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  const bool is_and_;
  ExpressionPtr left_, right_;
};

struct Unary : Expression {
  enum class Kind { kNot, kMinus, kPlus };
  Unary(size_t at, Kind kind, ExpressionPtr operand)
      : Expression(at), kind_(kind), operand_(std::move(operand)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  const Kind kind_;
  ExpressionPtr operand_;
};

struct Conditional : Expression {  // then if condition else otherwise; `otherwise` may be null
  Conditional(size_t at, ExpressionPtr condition, ExpressionPtr then, ExpressionPtr otherwise)
      : Expression(at),
        condition_(std::move(condition)),
        then_(std::move(then)),
        otherwise_(std::move(otherwise)) {}
  Value value(Runtime&, const Scope&) const override;

 private:
  ExpressionPtr condition_, then_, otherwise_;
};

}  // namespace dmc::text::chat
