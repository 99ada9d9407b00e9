// Tiles of native/cuda, block by block on a processor.
//   tiles CASES SEED    how many cases of each kind, and which
#include "block.h"
#include "cases.h"

int main(int, char** arguments) {
  using namespace tandem::cuda;
  const int cases = arguments[1] == nullptr ? 24 : std::atoi(arguments[1]);
  block.random.seed(arguments[1] == nullptr || arguments[2] == nullptr ? 1 : static_cast<unsigned>(std::atoi(arguments[2])));
  if (!groupedHold(cases) || !attentionHolds(cases)) return 1;
  std::printf("tiles: %d cases of each kind hold\n", cases);
}
