// Values of JavaScript as the native layer takes them: numbers, shapes, tensors' values, and an op as a Call. Shapes are those of
// exec/native.ts; what a value means is checked where it is used.
#pragma once

#include <napi.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "backend.h"

namespace tandem {

inline int32_t integerOf(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }

inline std::vector<int32_t> integersOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<int32_t> integers(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++) integers[i] = integerOf(array.Get(i));
  return integers;
}

inline std::vector<double> numbersOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<double> numbers(array.Length());
  for (uint32_t i = 0; i < array.Length(); i++) numbers[i] = Napi::Value(array.Get(i)).As<Napi::Number>().DoubleValue();
  return numbers;
}

inline double numberOf(const Napi::Object& object, const char* name) {
  return Napi::Value(object.Get(name)).As<Napi::Number>().DoubleValue();
}

inline Napi::Array stringsOf(Napi::Env env, const std::vector<std::string>& strings) {
  auto array = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); i++) array.Set(i, strings[i]);
  return array;
}

inline int64_t wholeOf(double value) {
  if (std::floor(value) == value && std::fabs(value) <= 9007199254740992.0) return static_cast<int64_t>(value);
  throw BadCall(std::to_string(value) + " is no whole number");
}

inline Shape shapeOf(const Napi::Value& value) {
  Shape shape;
  for (const double extent : numbersOf(value)) shape.push_back(wholeOf(extent));
  return shape;
}

/** The values behind a Float32Array or an Int32Array. */
struct Values {
  void* data;
  int64_t elements;
  bool integers;
};

inline Values valuesOf(const Napi::Value& value) {
  const auto array = value.As<Napi::TypedArray>();
  const napi_typedarray_type type = array.TypedArrayType();
  if (type != napi_float32_array && type != napi_int32_array) {
    throw BadCall("values: expected a Float32Array or an Int32Array");
  }
  Napi::ArrayBuffer buffer = array.ArrayBuffer();
  if (buffer.IsDetached()) throw BadCall("values: their buffer is detached");
  return {static_cast<char*>(buffer.Data()) + array.ByteOffset(), static_cast<int64_t>(array.ElementLength()),
          type == napi_int32_array};
}

inline std::map<std::string, Attribute> attributesOf(const Napi::Object& op) {
  std::map<std::string, Attribute> all;
  const auto attributes = Napi::Value(op.Get("attributes")).As<Napi::Object>();
  const Napi::Array names = attributes.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); i++) {
    const auto name = Napi::Value(names.Get(i)).As<Napi::String>();
    const Napi::Value value = attributes.Get(name);
    Attribute& attribute = all[name.Utf8Value()];
    if (value.IsNumber()) attribute = value.As<Napi::Number>().DoubleValue();
    if (value.IsBoolean()) attribute = value.As<Napi::Boolean>().Value();
    if (value.IsString()) attribute = value.As<Napi::String>().Utf8Value();
  }
  return all;
}

/** What a composite is made of: parts, and the shapes and dtypes of its inner values. */
inline void takeParts(Call& call, const Napi::Object& op) {
  const auto parts = Napi::Value(op.Get("parts")).As<Napi::Array>();
  for (uint32_t i = 0; i < parts.Length(); i++) {
    const auto from = Napi::Value(parts.Get(i)).As<Napi::Object>();
    Part part;
    part.kernel = Napi::Value(from.Get("kernel")).As<Napi::String>().Utf8Value();
    part.attributes = attributesOf(from);
    for (const int32_t place : integersOf(from.Get("inputs"))) part.inputs.push_back(place);
    for (const int32_t place : integersOf(from.Get("outputs"))) part.outputs.push_back(place);
    call.parts.push_back(std::move(part));
  }
  const auto inner = Napi::Value(op.Get("inner")).As<Napi::Array>();
  for (uint32_t i = 0; i < inner.Length(); i++) {
    const auto from = Napi::Value(inner.Get(i)).As<Napi::Object>();
    Operand operand;
    operand.dtype = dtypeOf(integerOf(from.Get("dtype")));
    operand.shape = shapeOf(from.Get("shape"));
    operand.elements = 1;
    for (const int64_t extent : operand.shape) operand.elements *= extent;
    operand.sizeBytes = operand.elements * 4;
    call.inner.push_back(std::move(operand));
  }
}

inline Call callOf(const Napi::Object& op) {
  Call call;
  call.kernel = Napi::Value(op.Get("kernel")).As<Napi::String>().Utf8Value();
  call.lane = integerOf(op.Get("lane"));
  call.attributes = attributesOf(op);
  takeParts(call, op);
  const auto scalars = Napi::Value(op.Get("scalars")).As<Napi::Array>();
  for (uint32_t i = 0; i < scalars.Length(); i++) {
    call.scalars.push_back(Napi::Value(scalars.Get(i)).As<Napi::String>().Utf8Value());
  }
  const Napi::Value group = op.Get("group");
  if (group.IsString()) {
    call.group = Group{group.As<Napi::String>().Utf8Value(), {}};
    for (const int32_t member : integersOf(op.Get("members"))) call.group->members.push_back(member);
  }
  call.seconds = numberOf(op, "seconds");
  call.latencySeconds = numberOf(op, "latencySeconds");
  const std::vector<double> loads = numbersOf(op.Get("loads"));
  for (size_t i = 0; i + 1 < loads.size(); i += 2) call.loads.push_back({static_cast<int>(loads[i]), loads[i + 1]});
  return call;
}

}  // namespace tandem
