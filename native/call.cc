// Codes and attributes of a call, by name and type. JavaScript has filled in the fallbacks: a missing one is a defect.
#include <cmath>
#include <cstdlib>

#include "backend.h"

namespace tandem {

Dtype dtypeOf(int64_t code) {
  if (code < 0 || code >= dtypeCount) throw BadCall("no dtype " + std::to_string(code));
  return static_cast<Dtype>(code);
}

Place placeOf(int64_t code) {
  if (code < 0 || code >= placeCount) throw BadCall("no place " + std::to_string(code));
  return static_cast<Place>(code);
}

namespace {

const Attribute& find(const Call& call, const char* name) {
  const auto found = call.attributes.find(name);
  if (found == call.attributes.end()) throw BadCall(call.kernel + ": attribute \"" + name + "\" is missing");
  return found->second;
}

template <class T>
const T& as(const Call& call, const char* name, const char* type) {
  if (const T* value = std::get_if<T>(&find(call, name))) return *value;
  throw BadCall(call.kernel + ": attribute \"" + name + "\" is not a " + type);
}

}  // namespace

double Call::number(const char* name) const { return as<double>(*this, name, "number"); }

int64_t Call::integer(const char* name) const {
  // up to where every whole number is one: seeds split by name go that far
  constexpr double most = 9007199254740992.0;
  const double value = number(name);
  if (value != std::floor(value) || std::fabs(value) > most) {
    throw BadCall(kernel + ": attribute \"" + name + "\" is " + std::to_string(value) + "; expected a whole number");
  }
  return static_cast<int64_t>(value);
}

bool Call::flag(const char* name) const { return as<bool>(*this, name, "boolean"); }

const std::string& Call::text(const char* name) const { return as<std::string>(*this, name, "string"); }

Scalar Call::scalar(const char* name) const {
  for (size_t i = 0; i < scalars.size(); i++) {
    if (scalars[i] != name) continue;
    const bool own = attributes.count(name) != 0;
    return {static_cast<int>(i), own ? number(name) : 0};
  }
  return {-1, number(name)};
}

std::vector<int64_t> Call::integers(const char* name) const {
  const std::string& list = text(name);
  std::vector<int64_t> values;
  size_t at = 0;
  while (at < list.size()) {
    char* end = nullptr;
    const long long value = std::strtoll(list.c_str() + at, &end, 10);
    const auto next = static_cast<size_t>(end - list.c_str());
    if (next == at || (next < list.size() && list[next] != ',')) {
      throw BadCall(kernel + ": " + name + " is \"" + list + "\"; expected whole numbers like \"3,0,5\"");
    }
    values.push_back(value);
    at = next + 1;
  }
  return values;
}

void Call::checkPlaces() const {
  const auto expect = [&](const std::vector<Operand>& operands, const char* side, Place expected) {
    for (size_t i = 0; i < operands.size(); i++) {
      if (operands[i].place == expected) continue;
      throw BadCall(kernel + ": " + side + " " + std::to_string(i) + " lies in " +
                    (expected == Place::device ? "host" : "device") + " memory; expected " +
                    (expected == Place::device ? "device" : "host"));
    }
  };
  expect(inputs, "input", kernel == "h2d" ? Place::host : place);
  expect(outputs, "output", kernel == "d2h" ? Place::host : place);
}

const char* nameOf(Dtype dtype) {
  static const char* const names[dtypeCount] = {"float32", "bfloat16", "float16", "float8", "float4", "int8", "int32"};
  return names[static_cast<int>(dtype)];
}

std::vector<int64_t> Call::rows(const char* name) const {
  // So many that those of a thousand members can be added.
  constexpr int64_t most = int64_t{1} << 53;
  std::vector<int64_t> rows = integers(name);
  for (const int64_t count : rows) {
    if (count >= 0 && count <= most) continue;
    throw BadCall(kernel + ": " + name + " is \"" + text(name) + "\"; expected whole numbers of rows like \"3,0,5\"");
  }
  const size_t members = group ? group->members.size() : 0;
  if (!rows.empty() && rows.size() != members) {
    throw BadCall(kernel + ": " + std::to_string(rows.size()) + " " + name + " for " + std::to_string(members) + " ranks");
  }
  return rows;
}

std::pair<std::vector<int64_t>, std::vector<int64_t>> Call::rowsExchanged() const {
  auto sent = rows("sendCounts");
  auto received = rows("receiveCounts");
  if (sent.empty() != received.empty()) {
    throw BadCall(kernel + ": both or neither of sendCounts and receiveCounts");
  }
  if (sent.empty() && group) sent = received = std::vector<int64_t>(group->members.size(), 1);
  return {std::move(sent), std::move(received)};
}

}  // namespace tandem
