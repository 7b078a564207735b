#include "app/cli/program.h"

int main(int argc, char** argv) { return rat::cli::run_program(argc, argv); }
