#include "ucx-carrier.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "../thread-name.h"
#include "ucx-settings.h"

namespace tandem {

namespace {

using Clock = std::chrono::steady_clock;

/** Messages to one peer that UCX has at once: more only fill its queues. Assumed: two windows of a collective's chunks (remote.cc). */
constexpr size_t sendingMax = 16;
/** What is on its way when a job ends, by fault or not, has so long to come to its end. Assumed: well below `lostAfterSeconds`. */
constexpr auto patience = std::chrono::seconds(1);
/** Sent on trial: what UCX sends at once, and what it sends when the receiver takes it; its threshold lies between, by far. */
constexpr size_t trialBytes[] = {256, size_t{1} << 18};
constexpr uint32_t trialTicket = ticketsMax;
/** What a rank sends on trial: never the zeros that the receiver's memory has before. */
char trialByte(int rank) { return static_cast<char>(rank % 255 + 1); }

/** A message's name at its receiver. */
uint64_t tagOf(int from, uint32_t ticket) { return static_cast<uint64_t>(from) << 32 | ticket; }

}  // namespace

struct UcxCarrier::End {
  UcxCarrier* carrier = nullptr;
  int peer = -1;
  ucx::Way* way = nullptr;
  ucx::Endpoint endpoint = nullptr;
  std::atomic<bool> failed{false};
  /** How, in UCX's words; written before `failed`. */
  std::string how;
  /** Messages to this peer that UCX has, and those that wait for these. */
  size_t sending = 0;
  std::deque<Message*> waiting;
};

struct UcxCarrier::Message {
  UcxCarrier* carrier = nullptr;
  End* end = nullptr;
  TransferKey key;
  uint32_t ticket = 0;
  /** One of them. */
  std::shared_ptr<Outgoing> outgoing;
  std::shared_ptr<Incoming> incoming;
  void* request = nullptr;
  /** What is sent or received on trial. */
  std::vector<char> trial;
};

// Making

UcxCarrier::UcxCarrier(Owner& owner, int rank, int size, const std::string& host)
    : Carrier(size), ucx_(ucx::library()), owner_(owner), rank_(rank), onTrial_(static_cast<size_t>(size), 0) {
  if (!ucx_.missing.empty()) throw NoUcx(ucx_.missing);
  const auto opened = [&](const ucx::Settings& settings) { return std::make_unique<ucx::Way>(ucx_, settings, onTrial_.size()); };
  if (ucx::mayShareMemory()) {
    near_ = opened(ucx::settingsOfMemory());
    address_.near = near_->address();
  }
  far_ = opened(ucx::settingsOfNetwork(host));
  address_.far = far_->address();
  epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
  wake_ = Fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (epoll_.get() < 0 || wake_.get() < 0) throw NoUcx(std::string("no event queue: ") + std::strerror(errno));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = wake_.get();
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  for (const ucx::Way* way : {near_.get(), far_.get()}) {
    if (way == nullptr) continue;
    int fd = -1;
    const ucx::Status status = ucx_.ucp_worker_get_efd(way->worker(), &fd);
    if (status != ucx::statusOk) throw NoUcx(std::string("UCX has no events: ") + ucx_.ucs_status_string(status));
    event.data.fd = fd;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
}

void UcxCarrier::makeEnd(int peer, const Peer& to) {
  auto end = std::make_unique<End>();
  end->carrier = this;
  end->peer = peer;
  end->way = to.near ? near_.get() : far_.get();
  ucx::EndpointParameters parameters;
  parameters.fields = ucx::EndpointParameters::hasAddress | ucx::EndpointParameters::hasErrorMode |
                      ucx::EndpointParameters::hasErrorHandler;
  parameters.address = to.near ? to.address.near.data() : to.address.far.data();
  // With errors of peers UCX copies what goes through shared memory, in small pieces and twice: there the operating system says who
  // is gone, by the mesh's own connections.
  parameters.errorMode = to.near ? ucx::EndpointParameters::errorsNone : ucx::EndpointParameters::errorsOfPeer;
  parameters.onError = onError;
  parameters.onErrorArgument = end.get();
  const ucx::Status status = ucx_.ucp_ep_create(end->way->worker(), &parameters, &end->endpoint);
  if (status != ucx::statusOk) {
    throw NoUcx("UCX " + ucx_.version + " has no way to rank " + std::to_string(peer) + ": " + ucx_.ucs_status_string(status));
  }
  ends_[static_cast<size_t>(peer)] = std::move(end);
}

void UcxCarrier::connect(const std::vector<Peer>& peers, double timeoutSeconds, const Cancellation* by) {
  const Until until = Until::in(timeoutSeconds, by);
  ends_.resize(peers.size());
  const auto others = [&](const auto& act) {
    for (int peer = 0; peer < static_cast<int>(peers.size()); peer++) {
      if (peer != rank_) act(peer);
    }
  };
  others([&](int peer) { makeEnd(peer, peers[static_cast<size_t>(peer)]); });
  thread_ = std::thread([this] { nameThread(rank_, "messages"), run(); });
  others([&](int peer) { sendOnTrial(peer); });
  poke();
  std::unique_lock lock(mutex_);
  const bool inTime = until.await(changed_, lock, [&] { return onTrialInAll_ == 0 || brokenEnd() != nullptr; });
  if (const End* broken = brokenEnd()) {
    throw NoUcx("UCX " + ucx_.version + ": the way to rank " + std::to_string(broken->peer) + " broke on trial: " + broken->how);
  }
  if (inTime) return;
  int silent = 0;
  while (onTrial_[static_cast<size_t>(silent)] == 0) silent++;
  throw NoUcx("UCX " + ucx_.version + ": what was sent to rank " + std::to_string(silent) + " and back on trial did not come in time");
}

void UcxCarrier::sendOnTrial(int peer) {
  for (uint32_t i = 0; i < std::size(trialBytes); i++) {
    for (const bool out : {false, true}) {
      auto message = std::make_unique<Message>();
      message->carrier = this;
      message->end = ends_[static_cast<size_t>(peer)].get();
      message->ticket = trialTicket + i;
      message->trial.assign(trialBytes[i], out ? trialByte(rank_) : '\0');
      char* const data = message->trial.data();
      if (out) {
        message->outgoing = std::make_shared<Outgoing>(nullptr, data, trialBytes[i], 0);
      } else {
        message->incoming = std::make_shared<Incoming>(nullptr, data, trialBytes[i], 0);
      }
      const std::lock_guard lock(mutex_);
      onTrial_[static_cast<size_t>(peer)]++;
      onTrialInAll_++;
      added_.push_back(std::move(message));
    }
  }
}

/** Null where all ways hold. */
const UcxCarrier::End* UcxCarrier::brokenEnd() const {
  for (const auto& end : ends_) {
    if (end && end->failed) return end.get();
  }
  return nullptr;
}

void UcxCarrier::start() {
  trying_ = false;
  // What broke since the trial was told to nobody.
  for (const auto& end : ends_) {
    if (end && end->failed) owner_.cutOff(end->peer, "has gone away: UCX: " + end->how);
  }
}

UcxCarrier::~UcxCarrier() {
  halt();
  if (thread_.joinable()) thread_.join();
  over_ = true;
  // UCX ends the process (an assertion, in 1.13) where it destroys an end through shared memory whose copy to or from another process
  // has not ended, and with one that is gone or stopped none ever does: such a way is left as it is.
  if (near_ && hasUnderWay(*near_)) near_->leave();
  near_.reset();
  far_.reset();
  for (Message* message : open_) delete message;
}

// From any thread

void UcxCarrier::receive(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Incoming>& incoming) {
  auto message = std::make_unique<Message>();
  message->end = ends_[static_cast<size_t>(peer)].get();
  message->key = key;
  message->ticket = ticket;
  message->incoming = incoming;
  add(std::move(message));
}

void UcxCarrier::send(int peer, const TransferKey& key, uint32_t ticket, const std::shared_ptr<Outgoing>& outgoing) {
  auto message = std::make_unique<Message>();
  message->end = ends_[static_cast<size_t>(peer)].get();
  message->key = key;
  message->ticket = ticket;
  message->outgoing = outgoing;
  add(std::move(message));
}

void UcxCarrier::add(std::unique_ptr<Message> message) {
  message->carrier = this;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = added_.empty();
    added_.push_back(std::move(message));
  }
  if (first) poke();
}

void UcxCarrier::poke() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void UcxCarrier::halt() {
  halting_ = true;
  poke();
}

void UcxCarrier::flush() {
  flushing_ = true;
  poke();
  std::unique_lock lock(mutex_);
  if (thread_.joinable() && !changed_.wait_for(lock, patience, [&] { return isHalted(); })) halting_ = true;
}

// The thread

void UcxCarrier::run() {
  while (!halting_) {
    take();
    beginWaiting();
    if (flushing_ && open_.empty()) {
      if (near_) closeEnds(false, *near_);
      closeEnds(false, *far_);
      break;
    }
    if (!progress()) sleep();
  }
  if (halting_) stop();
  {
    const std::lock_guard lock(mutex_);
    halted_.store(true, std::memory_order_release);
    changed_.notify_all();
  }
  owner_.still();
}

bool UcxCarrier::progress() const {
  unsigned moved = 0;
  if (near_) moved += ucx_.ucp_worker_progress(near_->worker());
  moved += ucx_.ucp_worker_progress(far_->worker());
  return moved > 0;
}

/** Until UCX has something to do, or somebody here. */
void UcxCarrier::sleep() {
  for (const ucx::Way* way : {near_.get(), far_.get()}) {
    if (way != nullptr && ucx_.ucp_worker_arm(way->worker()) == ucx::statusBusy) return;
  }
  epoll_event events[4];
  const int count = ::epoll_wait(epoll_.get(), events, 4, 500);
  for (int i = 0; i < count; i++) {
    if (events[i].data.fd != wake_.get()) continue;
    uint64_t ignored = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &ignored, sizeof ignored);
  }
}

/** Takes what others have added. */
void UcxCarrier::take() {
  std::vector<std::unique_ptr<Message>> added;
  {
    const std::lock_guard lock(mutex_);
    if (added_.empty()) return;
    added.swap(added_);
  }
  for (auto& one : added) {
    Message* const message = one.release();
    open_.insert(message);
    if (message->incoming) {
      begin(message);
    } else {
      message->end->waiting.push_back(message);
      waiting_++;
    }
  }
}

/** Hands UCX as much of what waits as it may have. */
void UcxCarrier::beginWaiting() {
  if (waiting_ == 0) return;
  for (const auto& end : ends_) {
    while (end && !end->waiting.empty() && end->sending < sendingMax && !end->failed) {
      Message* const next = end->waiting.front();
      end->waiting.pop_front();
      waiting_--;
      begin(next);
    }
  }
}

void UcxCarrier::begin(Message* message) {
  ucx::RequestParameters parameters;
  parameters.fields = ucx::RequestParameters::hasCallback | ucx::RequestParameters::hasUserData |
                      ucx::RequestParameters::hasMemoryType;
  parameters.userData = message;
  End& end = *message->end;
  ucx::StatusPointer begun = nullptr;
  if (message->outgoing) {
    end.sending++;
    parameters.callback.sent = onSent;
    const Outgoing& out = *message->outgoing;
    begun = ucx_.ucp_tag_send_nbx(end.endpoint, out.data, out.bytes, tagOf(rank_, message->ticket), &parameters);
  } else {
    parameters.fields |= ucx::RequestParameters::always;
    parameters.callback.received = onReceived;
    beginning_ = message;
    const Incoming& in = *message->incoming;
    begun = ucx_.ucp_tag_recv_nbx(end.way->worker(), in.data, in.bytes, tagOf(end.peer, message->ticket), UINT64_MAX, &parameters);
  }
  beginning_ = nullptr;
  if (begun == nullptr || ucx::isError(begun)) {
    ended(message, begun == nullptr ? ucx::statusOk : ucx::errorOf(begun), 0);
    return;
  }
  message->request = begun;
  ucx::TagInfo came{};
  const ucx::Status status = message->incoming ? ucx_.ucp_tag_recv_request_test(begun, &came) : ucx::statusInProgress;
  if (status == ucx::statusInProgress) return;
  ucx_.ucp_request_free(begun);
  ended(message, status, came.length);
}

void UcxCarrier::onSent(void* request, ucx::Status status, void* given) {
  auto* const message = static_cast<Message*>(given);
  UcxCarrier& carrier = *message->carrier;
  carrier.ucx_.ucp_request_free(request);
  if (!carrier.over_) carrier.ended(message, status, 0);
}

void UcxCarrier::onReceived(void* request, ucx::Status status, const ucx::TagInfo* info, void* given) {
  auto* const message = static_cast<Message*>(given);
  UcxCarrier& carrier = *message->carrier;
  // Who begins it asks.
  if (carrier.beginning_ == message) return;
  const size_t came = info->length;
  carrier.ucx_.ucp_request_free(request);
  if (!carrier.over_) carrier.ended(message, status, came);
}

/** UCX has done with a message, of which so many bytes came. One that went wrong stays open: nobody may take it for done. */
void UcxCarrier::ended(Message* message, ucx::Status status, size_t came) {
  message->request = nullptr;
  End& end = *message->end;
  if (message->outgoing) end.sending--;
  if (status != ucx::statusOk) {
    if (!halting_ && !end.failed) onError(&end, end.endpoint, status);
    return;
  }
  if (message->incoming && came != message->incoming->bytes) {
    const std::string awaited = std::to_string(message->incoming->bytes);
    const std::string what = "sent " + std::to_string(came) + " B where " + awaited + " B were awaited";
    message->trial.empty() ? owner_.refuse(end.peer, what) : broke(end, "it " + what);
    return;
  }
  const std::unique_ptr<Message> done(message);
  open_.erase(message);
  if (!done->trial.empty()) {
    const bool right = done->outgoing || done->trial == std::vector<char>(done->trial.size(), trialByte(end.peer));
    const std::lock_guard lock(mutex_);
    if (right) onTrial_[static_cast<size_t>(end.peer)]--;
    if (right && --onTrialInAll_ == 0) changed_.notify_all();
  } else if (done->outgoing) {
    countSent(end.peer, done->outgoing->bytes);
    owner_.sent(done->outgoing);
  } else {
    countReceived(end.peer, done->incoming->bytes);
    owner_.received(end.peer, done->key, done->incoming);
  }
}

void UcxCarrier::onError(void* given, ucx::Endpoint, ucx::Status status) {
  auto& end = *static_cast<End*>(given);
  end.carrier->broke(end, end.carrier->ucx_.ucs_status_string(status));
}

/** Nothing goes to that peer any more. Not with the lock held. */
void UcxCarrier::broke(End& end, const std::string& how) {
  if (end.failed) return;
  {
    // Under the lock, or who waits for the trial might not be woken.
    const std::lock_guard lock(mutex_);
    end.how = how;
    end.failed = true;
    changed_.notify_all();
  }
  if (!over_ && !halting_ && !trying_) owner_.cutOff(end.peer, "has gone away: UCX: " + how);
}

/** Whether UCX has messages of a way that have not come to their end. */
bool UcxCarrier::hasUnderWay(const ucx::Way& way) const {
  return std::any_of(open_.begin(), open_.end(),
                     [&](const Message* message) { return message->end->way == &way && message->request != nullptr; });
}

/** Closes all ends of a way, and waits for a while until that is done. */
void UcxCarrier::closeEnds(bool byForce, ucx::Way& way) {
  std::vector<void*> closing;
  for (const auto& end : ends_) {
    if (!end || end->way != &way || end->endpoint == nullptr) continue;
    ucx::RequestParameters parameters;
    // An end that has failed can only be let go of, which UCX allows where it tells of errors.
    if ((byForce || end->failed) && &way == far_.get()) {
      parameters.fields = ucx::RequestParameters::hasFlags;
      parameters.flags = ucx::RequestParameters::closeByForce;
    }
    ucx::StatusPointer closed = ucx_.ucp_ep_close_nbx(end->endpoint, &parameters);
    end->endpoint = nullptr;
    if (closed != nullptr && !ucx::isError(closed)) closing.push_back(closed);
  }
  const auto until = Clock::now() + patience;
  const auto isOpen = [&] {
    for (void* one : closing) {
      if (ucx_.ucp_request_check_status(one) == ucx::statusInProgress) return true;
    }
    return byForce && hasUnderWay(way);
  };
  while (isOpen() && Clock::now() < until) {
    if (ucx_.ucp_worker_progress(way.worker()) == 0) ::usleep(100);
  }
  for (void* one : closing) ucx_.ucp_request_free(one);
}

/** After a fault: nothing here touches lent memory any more, and no adapter does. */
void UcxCarrier::stop() {
  // Through shared memory only this thread reads and writes, and it does no more.
  for (Message* message : std::vector<Message*>(open_.begin(), open_.end())) {
    if (message->end->way == far_.get() && message->incoming && message->request != nullptr) {
      ucx_.ucp_request_cancel(far_->worker(), message->request);
    }
  }
  closeEnds(true, *far_);
  // What has not come to its end by then does with the adapters' queues, which go with their worker.
  over_ = true;
  far_.reset();
}

}  // namespace tandem
