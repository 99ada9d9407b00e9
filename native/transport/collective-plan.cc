#include "collective-plan.h"

namespace tandem {

namespace {

/**
 * Messages of so many bytes are short. Assumed, from a trial that is not kept: between two processes of one host, everything to
 * everybody was the quicker for 64 and 256 KiB, shares for 1 MiB. The simulator has the same number (core/wire/legs.ts).
 */
constexpr size_t oneShotBytes = size_t{1} << 18;

uint64_t fnv(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

/** " of bfloat16", " of float32 to int8"; of several tensors, the first one's. Nothing of float32, which is what most are. */
std::string dtypesOf(const std::vector<Operand>& inputs, const std::vector<Operand>& outputs) {
  if (inputs.empty() && outputs.empty()) return "";
  const Dtype in = (inputs.empty() ? outputs : inputs)[0].dtype;
  const Dtype out = (outputs.empty() ? inputs : outputs)[0].dtype;
  if (in == Dtype::float32 && out == in) return "";
  return std::string(" of ") + nameOf(in) + (in == out ? "" : std::string(" to ") + nameOf(out));
}

/** Whether so many values are `rows` of `unit` each. */
bool areRows(int64_t elements, int64_t rows, int64_t unit) {
  return rows == 0 ? elements == 0 : elements % rows == 0 && elements / rows == unit;
}

}  // namespace

CollectivePlan::CollectivePlan(const Call& call, size_t member)
    : CollectiveCall(call), ranks(call.group->members), own(member), over(averages ? static_cast<double>(members) : 1) {
  for (const Operand& in : inputs) packingOf(in.dtype, wire);
  if (counts.empty()) counts.assign(members, 1);
  checkSizes();
  describe(call);
}

void CollectivePlan::checkSizes() const {
  const auto bad = [&](size_t tensor) {
    throw BadCall(kernel + ": operand " + std::to_string(tensor) + " has " +
                  std::to_string(inputs[tensor].elements) + " values in and " +
                  std::to_string(outputs[tensor].elements) + " out, in a group of " +
                  std::to_string(ranks.size()));
  };
  for (size_t i = 0; kernel != "send_recv" && i < inputs.size(); i++) {
    const int64_t in = inputs[i].elements;
    const int64_t out = outputs[i].elements;
    const int64_t whole = kernel == "reduce_scatter" ? in : out;
    const int64_t part = kernel == "reduce_scatter" ? out : in;
    if (isInteger(inputs[i].dtype) != isInteger(outputs[i].dtype)) {
      throw BadCall(kernel + ": integer and float tensors do not mix");
    }
    if (kernel == "all_reduce" || kernel == "broadcast") {
      if (in != out) bad(i);
    } else if (kernel == "all_to_all") {
      const int64_t sends = sumOf(sendCounts);
      const int64_t receives = sumOf(receiveCounts);
      if (sendCounts[own] != receiveCounts[own]) bad(i);
      // Of rows that come, where none go, this member knows only that they are alike.
      const int64_t unit = sends > 0 ? in / sends : receives > 0 ? out / receives : 0;
      if (!areRows(in, sends, unit) || !areRows(out, receives, unit)) bad(i);
    } else {
      const int64_t rows = sumOf(counts);
      const int64_t unit = rows > 0 ? whole / rows : 0;
      if (!areRows(whole, rows, unit) || !areRows(part, counts[own], unit)) bad(i);
    }
  }
}

void CollectivePlan::describe(const Call& call) {
  // Two names over the same ranks are two communicators, each with an order of its own.
  std::string group = call.group->name + ":";
  for (const int rank : ranks) group += std::to_string(rank) + ",";
  int64_t bytes = 0;
  for (const Operand& one : inputs.empty() ? outputs : inputs) bytes += one.sizeBytes;
  meaning.text = kernel + " of " + std::to_string(bytes) + " B" + dtypesOf(inputs, outputs);
  std::string alike = group + kernel + " " + wire + " " + std::to_string(over) + " " + std::to_string(root);
  if (!wire.empty()) meaning.text += " as " + wire;
  if (over != 1) meaning.text += ", averaged";
  if (kernel == "broadcast") meaning.text += " from member " + std::to_string(root);
  for (const int64_t count : kernel == "all_gather" || kernel == "reduce_scatter" ? counts : std::vector<int64_t>()) {
    alike += " " + std::to_string(count);
  }
  // Everything that the way of a collective may depend on: dtypes of both sides, where a member has both, and sizes that all share.
  const auto tell = [&](const std::vector<Operand>& tensors, bool sizes) {
    alike += " " + std::to_string(tensors.size());
    for (const Operand& one : tensors) {
      alike += " " + std::to_string(static_cast<int>(one.dtype));
      if (sizes) alike += "x" + std::to_string(one.elements);
    }
  };
  if (kernel == "send_recv") {
    const std::string from = " from member " + std::to_string(source ? own : 1 - own);
    meaning.text += from;
    alike += from;
    tell(source ? inputs : outputs, true);
  } else {
    // A member's own rows show in what is sent.
    tell(inputs, kernel != "all_to_all" && kernel != "all_gather");
    tell(outputs, kernel == "all_gather");
  }
  meaning.digest = fnv(alike);
}

Spans CollectivePlan::share(const std::vector<Operand>& tensors, size_t member) const {
  const int64_t total = elementsOf(tensors);
  const auto members = static_cast<int64_t>(ranks.size());
  const auto place = static_cast<int64_t>(member);
  const auto cut = [&](int64_t i) { return total / members * i + total % members * i / members; };
  return stretchOf(tensors, cut(place), cut(place + 1));
}

Spans CollectivePlan::scatterPart(size_t member) const { return rowsOf(inputs, counts, member); }

Spans CollectivePlan::gatherPart(size_t member) const { return rowsOf(outputs, counts, member); }

Spans CollectivePlan::sentTo(size_t member) const { return rowsOf(inputs, sendCounts, member); }

Spans CollectivePlan::receivedFrom(size_t member) const { return rowsOf(outputs, receiveCounts, member); }

bool CollectivePlan::oneShot() const {
  size_t sent = 0;
  size_t sums = 0;
  for (size_t i = 0; i < inputs.size(); i++) {
    sent += packedBytes(packingOf(inputs[i].dtype, wire), inputs[i].elements);
    sums += packedBytes(packingOf(outputs[i].dtype, ""), outputs[i].elements);
  }
  // Of as many bytes, few go quicker in one phase, and many with each value added in one place alone.
  return sent * ranks.size() < sent + sums || (sent * ranks.size() == sent + sums && sent <= oneShotBytes);
}

Packing CollectivePlan::sentAs(size_t tensor) const {
  return packingOf((inputs.empty() ? outputs : inputs)[tensor].dtype, wire);
}

}  // namespace tandem
