// A gateway in C++ gRPC: CheckOrder, one call at a time.
//
// client_grpc ADDRESS REQUESTS_FILE FIRST_ID COUNT    prints {"histogram": ...}
//
// The file is the load generator's (load.c); ids are counted from FIRST_ID. A tenth of the calls
// more is made first, and not counted.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "histogram.h"
#include "riskd/v1/order_risk_service.grpc.pb.h"

namespace {

std::vector<riskd::v1::CheckOrderRequest> read_requests(const char* path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<riskd::v1::CheckOrderRequest> requests;
    std::uint32_t sizes[2];
    while (file.read(reinterpret_cast<char*>(sizes), sizeof sizes)) {
        file.seekg(sizeof(std::uint32_t) * sizes[1], std::ios::cur);
        std::string bytes(sizes[0], '\0');
        file.read(bytes.data(), sizes[0]);
        if (!file || !requests.emplace_back().ParseFromString(bytes)) {
            std::cerr << "client_grpc: " << path << " is damaged\n";
            std::exit(1);
        }
    }
    return requests;
}

}  // namespace

int main(int count, char** words) {
    if (count != 5) {
        std::cerr << "usage: client_grpc ADDRESS REQUESTS_FILE FIRST_ID COUNT\n";
        return 2;
    }
    using Clock = std::chrono::steady_clock;
    static Histogram histogram;
    auto requests = read_requests(words[2]);
    auto id = std::strtoull(words[3], nullptr, 10);
    const long calls = std::atol(words[4]);
    const auto stub = riskd::v1::OrderRiskService::NewStub(
        grpc::CreateChannel(words[1], grpc::InsecureChannelCredentials()));
    for (long index = -calls / 10; index < calls; index++) {
        auto& request = requests[id % requests.size()];
        request.set_client_order_id(id++);
        riskd::v1::CheckOrderResponse response;
        grpc::ClientContext context;
        const auto start = Clock::now();
        const grpc::Status status = stub->CheckOrder(&context, request, &response);
        const auto elapsed = Clock::now() - start;
        if (!status.ok() || response.decision() != riskd::v1::DECISION_ACCEPTED) {
            std::cerr << "client_grpc: " << status.error_message() << response.DebugString();
            return 1;
        }
        if (index >= 0) {
            histogram_record(&histogram, static_cast<std::uint64_t>(
                std::chrono::nanoseconds(elapsed).count()));
        }
    }
    std::cout << "{\"histogram\": " << std::flush;
    histogram_print(&histogram, stdout);
    std::cout.flush();
    std::puts("}");
}
