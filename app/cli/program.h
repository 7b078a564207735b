// The command line as a function: parses, runs the command, turns every error into one sentence and an exit code.
#pragma once

namespace rat::cli {

int run_program(int argc, char** argv);

}  // namespace rat::cli
