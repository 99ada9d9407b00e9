// Holds what transport/ucx-api.h declares to UCX's own header, where that is installed (Debian: libucx-dev). It need only compile:
//   g++ -std=gnu++17 -fsyntax-only native/test/ucx/abi.cc
#include <ucp/api/ucp.h>

#include <cstddef>
#include <utility>

#include "../../transport/ucx-api.h"

namespace tandem::ucx {

template <typename Own, typename Theirs>
constexpr bool alike = sizeof(Own) == sizeof(Theirs) && alignof(Own) == alignof(Theirs);

#define SAME_PLACE(own, field, theirs, other)                    \
  static_assert(offsetof(own, field) == offsetof(theirs, other) && \
                sizeof(std::declval<own>().field) == sizeof(std::declval<theirs>().other))

static_assert(alike<Status, ucs_status_t> && alike<StatusPointer, ucs_status_ptr_t>);
static_assert(statusOk == UCS_OK && statusInProgress == UCS_INPROGRESS && statusBusy == UCS_ERR_BUSY && statusLast == UCS_ERR_LAST);

// Later versions have more fields at the ends.
static_assert(sizeof(Parameters) <= sizeof(ucp_params_t));
SAME_PLACE(Parameters, fields, ucp_params_t, field_mask);
SAME_PLACE(Parameters, features, ucp_params_t, features);
SAME_PLACE(Parameters, estimatedEndpoints, ucp_params_t, estimated_num_eps);
static_assert(Parameters::hasFeatures == UCP_PARAM_FIELD_FEATURES && Parameters::hasEndpoints == UCP_PARAM_FIELD_ESTIMATED_NUM_EPS);
static_assert(Parameters::featureTag == UCP_FEATURE_TAG && Parameters::featureWakeup == UCP_FEATURE_WAKEUP);

static_assert(sizeof(WorkerParameters) <= sizeof(ucp_worker_params_t));
SAME_PLACE(WorkerParameters, fields, ucp_worker_params_t, field_mask);
SAME_PLACE(WorkerParameters, threadMode, ucp_worker_params_t, thread_mode);
SAME_PLACE(WorkerParameters, flags, ucp_worker_params_t, flags);
static_assert(WorkerParameters::hasThreadMode == UCP_WORKER_PARAM_FIELD_THREAD_MODE);
static_assert(WorkerParameters::hasFlags == UCP_WORKER_PARAM_FIELD_FLAGS);
static_assert(WorkerParameters::serialized == UCS_THREAD_MODE_SERIALIZED);
static_assert(WorkerParameters::ignoreRequestLeak == UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK);

static_assert(sizeof(EndpointParameters) <= sizeof(ucp_ep_params_t));
SAME_PLACE(EndpointParameters, fields, ucp_ep_params_t, field_mask);
SAME_PLACE(EndpointParameters, address, ucp_ep_params_t, address);
SAME_PLACE(EndpointParameters, errorMode, ucp_ep_params_t, err_mode);
SAME_PLACE(EndpointParameters, onError, ucp_ep_params_t, err_handler.cb);
SAME_PLACE(EndpointParameters, onErrorArgument, ucp_ep_params_t, err_handler.arg);
static_assert(EndpointParameters::hasAddress == UCP_EP_PARAM_FIELD_REMOTE_ADDRESS);
static_assert(EndpointParameters::hasErrorMode == UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE);
static_assert(EndpointParameters::hasErrorHandler == UCP_EP_PARAM_FIELD_ERR_HANDLER);
static_assert(EndpointParameters::errorsNone == UCP_ERR_HANDLING_MODE_NONE);
static_assert(EndpointParameters::errorsOfPeer == UCP_ERR_HANDLING_MODE_PEER);

static_assert(alike<TagInfo, ucp_tag_recv_info_t>);
static_assert(sizeof(RequestParameters) <= sizeof(ucp_request_param_t));
SAME_PLACE(RequestParameters, fields, ucp_request_param_t, op_attr_mask);
SAME_PLACE(RequestParameters, flags, ucp_request_param_t, flags);
SAME_PLACE(RequestParameters, callback, ucp_request_param_t, cb);
SAME_PLACE(RequestParameters, userData, ucp_request_param_t, user_data);
SAME_PLACE(RequestParameters, memoryType, ucp_request_param_t, memory_type);
static_assert(RequestParameters::hasCallback == UCP_OP_ATTR_FIELD_CALLBACK);
static_assert(RequestParameters::hasUserData == UCP_OP_ATTR_FIELD_USER_DATA);
static_assert(RequestParameters::hasFlags == UCP_OP_ATTR_FIELD_FLAGS);
static_assert(RequestParameters::hasMemoryType == UCP_OP_ATTR_FIELD_MEMORY_TYPE);
static_assert(RequestParameters::always == UCP_OP_ATTR_FLAG_NO_IMM_CMPL);
static_assert(RequestParameters::closeByForce == UCP_EP_CLOSE_FLAG_FORCE && RequestParameters::hostMemory == UCS_MEMORY_TYPE_HOST);

}  // namespace tandem::ucx
