// C++ gRPC. What it prints is in ../README.md.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "riskd/v1/order_risk_service.grpc.pb.h"

namespace {

using namespace riskd::v1;
using std::chrono::milliseconds;

const std::string kService = "riskd.v1.OrderRiskService";
const std::string kNobody = "\tno body\r\n\u263a \U0001f608 %41\n";
const milliseconds kMinute(60'000);

std::atomic<std::uint64_t> next_id;
std::shared_ptr<grpc::Channel> channel;
std::unique_ptr<OrderRiskService::Stub> orders;

void expect(bool holds, const std::string& why) {
    if (!holds) {
        throw std::runtime_error(why);
    }
}

void expect_code(const grpc::Status& status, std::initializer_list<grpc::StatusCode> codes) {
    for (const auto code : codes) {
        if (status.error_code() == code) {
            return;
        }
    }
    throw std::runtime_error("code " + std::to_string(status.error_code()) + " " +
                             status.error_message());
}

CheckOrderRequest order() {
    CheckOrderRequest request;
    request.set_account_id(7);
    request.set_instrument_id(1);
    request.set_client_order_id(next_id++);
    request.set_side(SIDE_BUY);
    request.set_order_type(ORDER_TYPE_LIMIT);
    request.set_price_ticks(120'000);
    request.set_quantity_lots(1);
    request.set_gateway_id(3);
    return request;
}

std::uint64_t accepted(const CheckOrderResponse& reply) {
    expect(reply.decision() == DECISION_ACCEPTED && reply.reservation_id() != 0,
           reply.ShortDebugString());
    return reply.reservation_id();
}

std::unique_ptr<grpc::ClientContext> within(milliseconds limit) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + limit);
    return context;
}

CheckOrderResponse check(const CheckOrderRequest& request,
                         std::unique_ptr<grpc::ClientContext> context = within(kMinute)) {
    CheckOrderResponse reply;
    expect_code(orders->CheckOrder(context.get(), request, &reply), {grpc::OK});
    accepted(reply);
    return reply;
}

void unary() {
    check(order());
}

void repeat() {
    const auto request = order();
    const auto first = check(request);
    expect(check(request).SerializeAsString() == first.SerializeAsString(), "another reply");
}

void metadata() {
    const auto request = order();
    const auto first = check(request);
    auto context = within(kMinute);
    context->AddMetadata("x-text", "interop");
    context->AddMetadata("x-raw-bin", std::string("\0\xff\x80", 3));
    expect(check(request, std::move(context)).SerializeAsString() == first.SerializeAsString(),
           "another reply");
}

void batch() {
    BatchCheckOrdersRequest request;
    BatchCheckOrdersResponse reply;
    for (int index = 0; index < 64; index++) {
        *request.add_orders() = order();
    }
    expect_code(orders->BatchCheckOrders(within(kMinute).get(), request, &reply), {grpc::OK});
    std::set<std::uint64_t> seen;
    for (const auto& decision : reply.decisions()) {
        seen.insert(accepted(decision));
    }
    expect(seen.size() == 64, std::to_string(seen.size()) + " decisions");
}

void details() {
    BatchCheckOrdersResponse reply;
    const auto status = orders->BatchCheckOrders(within(kMinute).get(), {}, &reply);
    expect_code(status, {grpc::INVALID_ARGUMENT});
    google::rpc::Status found;
    google::rpc::ErrorInfo info;
    expect(found.ParseFromString(status.error_details()) && found.details_size() == 1 &&
               found.details(0).UnpackTo(&info),
           "no details");
    expect(info.domain() == "riskd" && info.reason() == "REQUEST_MALFORMED",
           info.ShortDebugString());
}

void large() {
    BatchCheckOrdersRequest request;
    BatchCheckOrdersResponse reply;
    const auto one = order();
    for (int index = 0; index < (1 << 20) / 25; index++) {
        *request.add_orders() = one;
    }
    expect_code(orders->BatchCheckOrders(within(kMinute).get(), request, &reply),
                {grpc::RESOURCE_EXHAUSTED, grpc::INVALID_ARGUMENT});
    unary();
}

void unimplemented() {
    grpc::GenericStub stub(channel);
    for (const auto& method : {"/" + kService + "/Nothing", std::string("/nobody.Nothing/Nothing")}) {
        grpc::CompletionQueue queue;
        const auto context = within(kMinute);
        const grpc::Slice nothing;
        const grpc::ByteBuffer request(&nothing, 1);
        grpc::ByteBuffer reply;
        grpc::Status status;
        void* tag = nullptr;
        bool ok = false;
        const auto call = stub.PrepareUnaryCall(context.get(), method, request, &queue);
        call->StartCall();
        call->Finish(&reply, &status, nullptr);
        queue.Next(&tag, &ok);
        expect_code(status, {grpc::UNIMPLEMENTED});
    }
}

void deadline() {
    unary();
    const auto context = within(milliseconds(200));
    const auto call = orders->StreamOrders(context.get());
    StreamOrdersResponse reply;
    expect(!call->Read(&reply), "a reply to nothing");
    expect_code(call->Finish(), {grpc::DEADLINE_EXCEEDED});
}

bool write_order(grpc::ClientReaderWriter<StreamOrdersRequest, StreamOrdersResponse>& call) {
    StreamOrdersRequest request;
    *request.mutable_order() = order();
    return call.Write(request);
}

void cancel() {
    const auto context = within(kMinute);
    const auto call = orders->StreamOrders(context.get());
    StreamOrdersResponse reply;
    if (write_order(*call) && call->Read(&reply)) {
        accepted(reply.order());
        context->TryCancel();
        expect(!call->Read(&reply), "a reply after the end");
    }
    expect_code(call->Finish(), {grpc::CANCELLED});
    unary();
}

void stream() {
    const auto context = within(kMinute);
    const auto call = orders->StreamOrders(context.get());
    std::thread writer([&call] {
        for (int index = 0; index < 1000 && write_order(*call); index++) {
        }
        call->WritesDone();
    });
    std::vector<std::uint64_t> seen;
    for (StreamOrdersResponse reply; call->Read(&reply);) {
        seen.push_back(reply.order().reservation_id());
    }
    writer.join();
    expect_code(call->Finish(), {grpc::OK});
    expect(seen.size() == 1000, std::to_string(seen.size()) + " replies");
    for (std::size_t index = 1; index < seen.size(); index++) {
        expect(seen[index - 1] < seen[index], "out of order");
    }
    expect(seen[0] != 0, "a rejected order");
}

void health() {
    using grpc::health::v1::HealthCheckRequest;
    using grpc::health::v1::HealthCheckResponse;
    const auto stub = grpc::health::v1::Health::NewStub(channel);
    HealthCheckRequest request;
    HealthCheckResponse reply;
    for (const auto& service : {std::string(), kService}) {
        request.set_service(service);
        expect_code(stub->Check(within(kMinute).get(), request, &reply), {grpc::OK});
        expect(reply.status() == HealthCheckResponse::SERVING, reply.ShortDebugString());
    }
    request.set_service(kNobody);
    const auto status = stub->Check(within(kMinute).get(), request, &reply);
    expect_code(status, {grpc::NOT_FOUND});
    expect(status.error_message() == "service " + kNobody + " is unknown", status.error_message());
}

void concurrent() {
    const int calls = std::atoi(std::getenv("INTEROP_CALLS"));
    std::atomic<int> left = calls;
    std::mutex lock;
    std::set<std::uint64_t> seen;
    std::string first_error;
    std::vector<std::thread> threads;
    for (int index = 0; index < 64; index++) {
        threads.emplace_back([&] {
            while (left-- > 0) {
                try {
                    const auto reservation = check(order()).reservation_id();
                    const std::lock_guard<std::mutex> guard(lock);
                    seen.insert(reservation);
                } catch (const std::exception& error) {
                    const std::lock_guard<std::mutex> guard(lock);
                    first_error = error.what();
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    expect(seen.size() == static_cast<std::size_t>(calls),
           std::to_string(seen.size()) + " reservations " + first_error);
}

std::string content_of(const char* variable) {
    const char* path = std::getenv(variable);
    if (path == nullptr) {
        return "";
    }
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

int main() {
    next_id = std::strtoull(std::getenv("INTEROP_FIRST_ID"), nullptr, 10);
    grpc::ChannelArguments arguments;
    auto credentials = grpc::InsecureChannelCredentials();
    if (std::getenv("INTEROP_CA") != nullptr) {
        grpc::SslCredentialsOptions options;
        options.pem_root_certs = content_of("INTEROP_CA");
        options.pem_private_key = content_of("INTEROP_KEY");
        options.pem_cert_chain = content_of("INTEROP_CERTIFICATE");
        credentials = grpc::SslCredentials(options);
        arguments.SetSslTargetNameOverride("localhost");
    }
    channel = grpc::CreateCustomChannel(std::getenv("INTEROP_ADDRESS"), credentials, arguments);
    orders = OrderRiskService::NewStub(channel);
    const std::pair<const char*, void (*)()> cases[] = {
        {"unary", unary},       {"repeat", repeat},     {"metadata", metadata},
        {"batch", batch},       {"details", details},   {"large", large},
        {"unimplemented", unimplemented},               {"deadline", deadline},
        {"cancel", cancel},     {"stream", stream},     {"health", health},
        {"concurrent", concurrent},
    };
    for (const auto& [name, run] : cases) {
        try {
            run();
            std::cout << name << "\tok" << std::endl;
        } catch (const std::exception& error) {
            std::cout << name << "\tFAIL\t" << error.what() << std::endl;
        }
    }
}
