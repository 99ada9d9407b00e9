// What the members of a collective must say alike, whatever ways they might take; and which calls cannot be.
#include "../../transport/collective-plan.h"
#include "meshes.h"

namespace tandem {

namespace {

Operand operandOf(Dtype dtype, int64_t elements) {
  Operand one;
  one.dtype = dtype;
  one.elements = elements;
  one.shape = {elements};
  one.sizeBytes = elements * 4;
  return one;
}

Call gatherOf(Dtype in, Dtype out, const std::string& counts, int64_t own, int64_t all) {
  Call call;
  call.kernel = "all_gather";
  call.group = Group{"world", {0, 1, 2}};
  call.attributes["wire"] = std::string();
  call.attributes["counts"] = counts;
  call.inputs = {operandOf(in, own)};
  call.outputs = {operandOf(out, all)};
  return call;
}

void refused(const Call& call, const std::string& says) {
  try {
    const CollectivePlan plan(call, 1);
  } catch (const BadCall& error) {
    check(std::string(error.what()).find(says) != std::string::npos, call.kernel + ": " + error.what());
    return;
  }
  check(false, call.kernel + " is refused: " + says);
}

}  // namespace

void plans() {
  const Dtype wide = Dtype::float32;
  const auto digest = [](const Call& call, size_t member) { return CollectivePlan(call, member).meaning.digest; };
  const Call even = gatherOf(wide, wide, "", 4, 12);
  check(digest(even, 0) == digest(even, 2), "members that submit the same say the same");
  check(digest(even, 0) != digest(gatherOf(wide, Dtype::bfloat16, "", 4, 12), 0), "dtypes of what comes out are told");
  check(digest(even, 0) != digest(gatherOf(wide, wide, "", 5, 15), 0), "sizes are told");
  check(digest(gatherOf(wide, wide, "1,2,3", 2, 6), 1) == digest(gatherOf(wide, wide, "1,2,3", 3, 6), 2), "uneven rows");

  const auto alone = [&](int64_t elements, const std::string& wire) {
    Call call;
    call.kernel = "all_reduce";
    call.group = Group{"world", {0, 1}};
    call.attributes["wire"] = wire;
    call.attributes["reduce"] = std::string("sum");
    call.inputs = call.outputs = {operandOf(wide, elements)};
    return CollectivePlan(call, 1).oneShot();
  };
  check(alone(1 << 16, "") && !alone(1 << 17, ""), "of two, short messages go to everybody, long ones by shares");
  check(alone(1 << 24, "bfloat16"), "narrow ones go to everybody, however long");

  refused(gatherOf(wide, wide, "3,-1,1", -1, 3), "rows like");
  refused(gatherOf(wide, wide, "9223372036854775807,1,1", 1, 3), "rows like");
  refused(gatherOf(wide, wide, "99999999999999999999999,1,1", 1, 3), "rows like");
  refused(gatherOf(wide, wide, "1,1", 1, 2), "2 counts for 3 ranks");
  refused(gatherOf(wide, wide, "1,1,1", 1, 4), "values in");
  refused(gatherOf(wide, wide, "0,0,0", 0, 4), "values in");

  Call exchange = gatherOf(wide, wide, "", 6, 9);
  exchange.kernel = "all_to_all";
  const auto rows = [&](const char* sent, const char* received, int64_t in, int64_t out) {
    exchange.attributes["sendCounts"] = std::string(sent);
    exchange.attributes["receiveCounts"] = std::string(received);
    exchange.inputs = {operandOf(wide, in)};
    exchange.outputs = {operandOf(wide, out)};
    return exchange;
  };
  check(CollectivePlan(rows("1,1,0", "0,1,2", 6, 9), 1).receivedFrom(2)[0].count == 6, "rows of three values");
  check(CollectivePlan(rows("0,0,0", "1,0,2", 0, 9), 1).receivedFrom(2)[0].count == 6, "rows, where none go");
  refused(rows("2,-1,1", "0,-1,3", 6, 6), "rows like");
  refused(rows("1,1,0", "0,1,2", 6, 8), "values in");
  refused(rows("0,0,0", "1,0,2", 0, 8), "values in");
  refused(rows("0,0,0", "0,0,0", 3, 0), "values in");
  refused(rows("1,1,0", "", 6, 9), "both or neither");
  refused(rows("1,1,0", "1,1,9007199254740992", 6, 9), "values in");

  Call message = gatherOf(wide, wide, "", 4, 4);
  message.kernel = "send_recv";
  message.group = Group{"pair", {0, 1}};
  message.attributes["source"] = true;
  message.outputs.clear();
  Call other = message;
  other.attributes["source"] = false;
  other.outputs = {operandOf(wide, 4)};
  other.inputs.clear();
  check(digest(message, 0) == digest(other, 1), "both ends of a message say the same");
  other.outputs = {operandOf(wide, 5)};
  check(digest(message, 0) != digest(other, 1), "sizes of both ends are told");
}

}  // namespace tandem
