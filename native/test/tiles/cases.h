// Cases of tiles that are drawn from the block's own random numbers.
#pragma once

namespace tandem::cuda {

/** Whether so many cases hold; says which does not. */
bool groupedHold(int cases);
bool attentionHolds(int cases);

}  // namespace tandem::cuda
