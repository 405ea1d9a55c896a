#include "dist/group.h"

namespace dmc::dist {
namespace {

class Alone : public Group {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void sum(const at::Tensor&) override {}
  void sum_to(const at::Tensor&, int) override {}
  void broadcast(const at::Tensor&, int) override {}
};

}  // namespace

Group& alone() {
  static Alone group;
  return group;
}

}  // namespace dmc::dist
