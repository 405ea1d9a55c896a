// What dmc-train can do by itself.
#include <map>

#include "cli/commands.h"
#include "cli/training_program.h"

namespace dmc::cli {

std::vector<Command> commands() {
  const std::map<std::string_view, Setup> setups = {{"retrofit", setup_retrofit},
                                                    {"train", setup_train},
                                                    {"convert", setup_convert},
                                                    {"demo", setup_demo}};
  std::vector<Command> all = training_commands();
  for (Command& command : all) command.setup = setups.at(command.name);
  return all;
}

}  // namespace dmc::cli
