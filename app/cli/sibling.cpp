#include "app/cli/sibling.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

extern char** environ;

namespace rat::cli {
namespace {

constexpr const char* window_program = "rat-workbench";

bool is_program(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
}

// Our environment, with Qt's offscreen platform: no display is needed or touched.
std::vector<std::string> offscreen_environment() {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable; ++variable)
    if (!std::string_view(*variable).starts_with("QT_QPA_PLATFORM=")) variables.emplace_back(*variable);
  variables.emplace_back("QT_QPA_PLATFORM=offscreen");
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::optional<std::filesystem::path> find_window_program() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error && is_program(self.parent_path() / window_program)) return self.parent_path() / window_program;
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "";
  while (!rest.empty()) {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    const std::filesystem::path folder = rest.substr(0, colon);
    if (!folder.empty() && is_program(folder / window_program)) return folder / window_program;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return std::nullopt;
}

Status run_window_program(const std::filesystem::path& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> variables = offscreen_environment();
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);  // we name the files ourselves
  pid_t child = 0;
  const int failure = posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0)
    return fail(ErrorCode::io_failure, "{} could not be started: {}.", program.string(), std::strerror(failure));
  int state = 0;
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return ok();
  if (WIFSIGNALED(state))
    return fail(ErrorCode::io_failure, "{} was ended by signal {} while drawing.", program.string(), WTERMSIG(state));
  return fail(ErrorCode::io_failure, "{} could not draw the figure (exit code {}); its message is above.",
              program.string(), WEXITSTATUS(state));
}

}  // namespace rat::cli
